/* heatmap_files.h - heat maps of a film as PNG files in a folder. SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_HEATMAP_FILES_H
#define RADZ_EXAMPLES_HEATMAP_FILES_H

#include "common.h"

typedef struct heatmap_settings {
    const char *dir;   /* NULL: no heat maps */
    text_list classes; /* none: the film's best */
    int method;        /* index of HEATMAP_METHODS */
} heatmap_settings;

#define HEATMAP_METHODS "similarity|attention|gradient"

/* Entries of an option table, and their lines of the help. */
#define HEATMAP_OPTIONS(h)                                                                                             \
    {"heatmap", .text = &(h).dir}, {"heatmap-class", .texts = &(h).classes},                                           \
    {                                                                                                                  \
        "heatmap-method", .choice = &(h).method, .words = HEATMAP_METHODS                                              \
    }
#define HEATMAP_HELP                                                                                                   \
    "  --heatmap DIR   write where a finding is seen, in colours over the film: a PNG\n"                               \
    "                  per film and class in DIR, which is made where there is none\n"                                 \
    "  --heatmap-class LABEL\n"                                                                                        \
    "                  of this class, may be given several times; else the best\n"                                     \
    "  --heatmap-method NAME\n"                                                                                        \
    "                  gradient (default), similarity or attention\n"

typedef struct heatmap_file {
    char *path;
    const char *label; /* belongs to the settings or the result */
    double low, high;  /* least and greatest number of the map */
} heatmap_file;
typedef struct heatmap_list {
    heatmap_file *files;
    size_t n;
} heatmap_list;

/* Makes the folder and looks the classes up in the bank, where one is given. 0 or an exit status. */
int begin_heatmaps(const heatmap_settings *s, const radz_bank *bank);
/* Adds a file per class. The film's name, its content, class and method make a name of their own: other films and other
 * classes never overwrite it. */
radz_status write_heatmaps(const heatmap_settings *s, radz_session *session, const radz_bank *bank,
                           const radz_image *image, const char *film, const radz_result *result, heatmap_list *out,
                           radz_error *err);
/* [{"label","method","path","low","high"}...] */
void print_heatmaps_json(const heatmap_settings *s, const heatmap_list *l);
void free_heatmaps(heatmap_list *l);

#endif
