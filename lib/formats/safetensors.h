/* safetensors.h - what reading and writing of safetensors files share. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SAFETENSORS_H
#define RZ_SAFETENSORS_H

#include "formats.h"

size_t rz_st_dtype_size(const char *dtype); /* bytes per element; 0: a dtype we do not know */

/* Would rz_st_parse take this header of n bytes before n_data bytes of data? */
radz_status rz_st_check_header(const rz_host *host, const char *header, size_t n, uint64_t n_data,
                               radz_error *err) RZ_CHECK;

#endif
