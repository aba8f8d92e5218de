/* dicom_files.h - a film's result as DICOM files. SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_DICOM_FILES_H
#define RADZ_EXAMPLES_DICOM_FILES_H

#include "heatmap_files.h"

typedef struct dicom_settings {
    const char *sr, *sc, *gsps; /* a file, or a folder for files named by their UIDs; NULL: none */
    const char *labels, *institution;
    double threshold; /* NaN: none */
} dicom_settings;

/* Entries of an option table, and their lines of the help. */
#define DICOM_OPTIONS(d)                                                                                               \
    {"sr", .text = &(d).sr}, {"sc", .text = &(d).sc}, {"gsps", .text = &(d).gsps}, {"labels", .text = &(d).labels},    \
        {"institution", .text = &(d).institution},                                                                     \
    {                                                                                                                  \
        "threshold", .real = &(d).threshold, .min = 0, .max = 1                                                        \
    }
#define DICOM_HELP                                                                                                     \
    "  --sr FILE       write the scores of a DICOM film as a structured report; FILE may be\n"                         \
    "                  a folder, as for the next two: files are then named by their UIDs\n"                            \
    "  --sc FILE       write the heat map over the film as a Secondary Capture\n"                                      \
    "  --gsps FILE     write the outline of its hot area as a presentation state\n"                                    \
    "  --labels FILE   JSON with codes and thresholds of the findings (radz.labels/1)\n"                               \
    "  --threshold P   report: findings with at least this probability are present\n"                                  \
    "  --institution TEXT\n"                                                                                           \
    "                  who runs this, for these files\n"

bool wants_dicom(const dicom_settings *s);
bool wants_map(const dicom_settings *s);
/* Where FILE is one file, only one film and one class fit in. 0 or an exit status. */
int check_dicom(const dicom_settings *s, const heatmap_settings *heat, size_t n_films);
/* Maps are of the classes of `heat`, else of the best, by its method. */
radz_status write_dicom(const dicom_settings *s, const heatmap_settings *heat, radz_session *session,
                        const radz_bank *bank, const radz_image *image, const radz_result *result, radz_error *err);

#endif
