/* cuda.c - the CUDA device. SPDX-License-Identifier: Apache-2.0 */
#include "ops.h"

radz_status rz_cuda_open(rz_device *dev, const rz_device_options *o, radz_error *err)
{
    (void)dev, (void)o;
    return rz_fail(err, RADZ_E_DEVICE, "this build has no CUDA device");
}
