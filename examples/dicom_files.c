/* A film's result as DICOM files. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dicom_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const methods[] = {"similarity", "attention", "gradient"}; /* HEATMAP_METHODS */

bool wants_map(const dicom_settings *s)
{
    return s->sc || s->gsps;
}

bool wants_dicom(const dicom_settings *s)
{
    return s->sr || wants_map(s);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int check_dicom(const dicom_settings *s, const heatmap_settings *heat, size_t n_films)
{
    const char *const paths[] = {s->sr, s->sc, s->gsps};
    static const char *const names[] = {"--sr", "--sc", "--gsps"};
    for (size_t i = 0; i < COUNT(paths); i++) {
        if (!paths[i] || is_folder(paths[i])) continue;
        if (n_films > 1) return usage("%s: with several films expected a folder that exists", names[i]);
        if (i && heat->classes.n > 1) return usage("%s: with several classes expected a folder that exists", names[i]);
    }
    if (!wants_dicom(s) && (s->labels || s->institution || !isnan(s->threshold)))
        return usage("--labels, --threshold and --institution go with --sr, --sc or --gsps");
    return 0;
}

/* Saves where the option says and lets the object go. */
static radz_status save(radz_dicom *d, const char *where, radz_error *err)
{
    char *path = NULL;
    if (is_folder(where)) {
        const size_t room = strlen(where) + strlen(radz_dicom_instance_uid(d)) + 8;
        path = need(malloc(room));
        snprintf(path, room, "%s/%s.dcm", where, radz_dicom_instance_uid(d));
    }
    radz_status status = radz_dicom_save(d, path ? path : where, err);
    free(path);
    radz_dicom_close(d);
    return status;
}

typedef struct writing {
    const dicom_settings *s;
    const heatmap_settings *heat;
    radz_session *session;
    const radz_bank *bank;
    const radz_image *image;
    const radz_result *result;
    radz_dicom_options options;
    float *map;
} writing;

static radz_status write_maps(const writing *w, const char *label, radz_error *err)
{
    radz_heatmap_options o;
    radz_dicom *d;
    radz_heatmap_options_init(&o);
    o.method = (radz_heatmap_method)w->heat->method;
    radz_status status = radz_heatmap(w->session, w->bank, w->image, label, &o, w->map, err);
    if (!status && w->s->sc) {
        status = radz_dicom_build_sc(w->image, w->result, label, w->map, &w->options, &d, err);
        if (!status) status = save(d, w->s->sc, err);
    }
    if (!status && w->s->gsps) {
        status = radz_dicom_build_gsps(w->image, w->result, label, w->map, &w->options, &d, err);
        if (!status) status = save(d, w->s->gsps, err);
    }
    return status;
}

radz_status write_dicom(const dicom_settings *s, const heatmap_settings *heat, radz_session *session,
                        const radz_bank *bank, const radz_image *image, const radz_result *result, radz_error *err)
{
    writing w = {s, heat, session, bank, image, result, {0}, NULL};
    radz_dicom *d;
    radz_status status = RADZ_OK;
    radz_dicom_options_init(&w.options);
    w.options.labels = s->labels;
    w.options.institution = s->institution;
    w.options.threshold = s->threshold;
    w.options.map_method = methods[heat->method];
    if (s->sr) {
        status = radz_dicom_build_sr(image, result, &w.options, &d, err);
        if (!status) status = save(d, s->sr, err);
    }
    if (status || !wants_map(s)) return status;
    w.map = need(malloc(radz_image_width(image) * radz_image_height(image) * sizeof *w.map));
    const size_t n = heat->classes.n ? heat->classes.n : 1;
    for (size_t i = 0; i < n && !status; i++)
        status = write_maps(&w, heat->classes.n ? heat->classes.items[i] : radz_result_label(result, 0), err);
    free(w.map);
    return status;
}
