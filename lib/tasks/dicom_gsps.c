/* dicom_gsps.c - Grayscale Softcopy Presentation State: the film with the outline of a map's hot area.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"

radz_status rz_gsps_put(rz_object_work *w, radz_error *err)
{
    (void)w;
    return rz_fail(err, RADZ_E_UNSUPPORTED, "dicom: presentation states are not written yet");
}
