/* mutate.h - damaged copies of a valid file. SPDX-License-Identifier: Apache-2.0 */
#ifndef MUTATE_H
#define MUTATE_H

#include "base.h"

/* Opens n bytes, uses what came of it as a caller would, closes it. */
typedef radz_status (*mutate_reader)(const uint8_t *bytes, size_t n, radz_error *err);

/* Every truncation and every byte changed in several ways: the reader must take it or refuse it with a one-line
 * message and one of the codes for bad files. Copies have their exact size, so that ASan sees one byte too far.
 * Only positions below `most` are tried. Returns how many were refused. */
size_t mutate_all(const uint8_t *bytes, size_t n, size_t most, mutate_reader reader);

#endif
