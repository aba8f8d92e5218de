/* Heat maps of a film as PNG files in a folder. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "heatmap_files.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const methods[] = {"similarity", "attention", "gradient"}; /* HEATMAP_METHODS */

/* ---- Before the first film ---- */

static bool has_class(const radz_bank *bank, const char *label)
{
    for (size_t i = 0; i < radz_bank_count(bank); i++)
        if (strcasecmp(radz_bank_label(bank, i), label) == 0) return true;
    return false;
}

int begin_heatmaps(const heatmap_settings *s, const radz_bank *bank)
{
    if (!s->dir) return 0;
    for (size_t i = 0; i < s->classes.n; i++)
        if (bank && !has_class(bank, s->classes.items[i]))
            return usage("--heatmap-class: the bank has no class %s", s->classes.items[i]);
    struct stat st;
    if (mkdir(s->dir, 0777) == 0 || (errno == EEXIST && stat(s->dir, &st) == 0 && S_ISDIR(st.st_mode))) return 0;
    complain("%s: cannot make this folder: %s", s->dir, strerror(errno));
    return EXIT_USAGE;
}

/* ---- Names ---- */

enum { MAX_STEM = 80, MAX_LABEL = 80 };

/* Letters, digits and _ stay, a space becomes -, anything else =XX: different texts stay different, up to max bytes. */
static void put_plain(char *to, const char *text, size_t n, size_t max, bool dots)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t k = strlen(to);
    const size_t end = k + max;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
                           (c == '.' && dots && i);
        if (k + 3 > end) break;
        if (plain || c == ' ') {
            to[k++] = plain ? (char)c : '-';
        } else {
            to[k++] = '=';
            to[k++] = digits[c >> 4];
            to[k++] = digits[c & 15];
        }
    }
    to[k] = 0;
}

/* FNV-1a: tells labels apart that are too long for a file's name. */
static unsigned long long hash_of(const char *text)
{
    unsigned long long h = 0xcbf29ce484222325;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3;
    return h;
}

static char *file_path(const heatmap_settings *s, const char *film, const radz_image *image, const char *label)
{
    const char *slash = strrchr(film, '/'), *name = slash ? slash + 1 : film, *dot = strrchr(name, '.');
    const size_t n = strlen(s->dir), room = n + MAX_STEM + MAX_LABEL + 128;
    char *path = need(calloc(1, room));
    snprintf(path, room, "%s%s", s->dir, n && s->dir[n - 1] == '/' ? "" : "/");
    if (strcmp(film, "-") == 0)
        strcat(path, "stdin");
    else
        put_plain(path, name, dot && dot > name ? (size_t)(dot - name) : strlen(name), MAX_STEM, true);
    snprintf(path + strlen(path), 20, ".%.16s.", radz_image_sha256(image));
    put_plain(path, label, strlen(label), MAX_LABEL, false);
    if (strlen(label) * 3 > MAX_LABEL) snprintf(path + strlen(path), 20, "=%016llx", hash_of(label));
    strcat(strcat(strcat(path, "."), methods[s->method]), ".png");
    return path;
}

/* ---- Maps ---- */

static void find_ends(const float *map, size_t n, heatmap_file *f)
{
    f->low = INFINITY, f->high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(map[i])) continue;
        f->low = fmin(f->low, (double)map[i]);
        f->high = fmax(f->high, (double)map[i]);
    }
}

/* "Edema, gradient": no path, which may name a patient. */
static char *make_title(const heatmap_settings *s, const char *label)
{
    const size_t room = strlen(label) + 40;
    char *title = need(malloc(room));
    snprintf(title, room, "%s, %s", label, methods[s->method]);
    return title;
}

static radz_status write_one(const heatmap_settings *s, radz_session *session, const radz_bank *bank,
                             const radz_image *image, float *map, heatmap_file *f, radz_error *err)
{
    radz_heatmap_options o;
    radz_heatmap_picture p;
    radz_heatmap_options_init(&o);
    o.method = (radz_heatmap_method)s->method;
    radz_status status = radz_heatmap(session, bank, image, f->label, &o, map, err);
    if (status != RADZ_OK) return status;
    find_ends(map, radz_image_width(image) * radz_image_height(image), f);
    char *title = make_title(s, f->label);
    radz_heatmap_picture_init(&p);
    p.title = title;
    status = radz_heatmap_save_png(f->path, image, map, &p, err);
    free(title);
    return status;
}

radz_status write_heatmaps(const heatmap_settings *s, radz_session *session, const radz_bank *bank,
                           const radz_image *image, const char *film, const radz_result *result, heatmap_list *out,
                           radz_error *err)
{
    const size_t n = s->classes.n ? s->classes.n : 1;
    radz_status status = RADZ_OK;
    out->files = need(calloc(n, sizeof *out->files));
    float *map = need(malloc(radz_image_width(image) * radz_image_height(image) * sizeof *map));
    for (size_t i = 0; i < n && status == RADZ_OK; i++) {
        heatmap_file *f = &out->files[out->n++];
        f->label = s->classes.n ? s->classes.items[i] : radz_result_label(result, 0);
        f->path = file_path(s, film, image, f->label);
        status = write_one(s, session, bank, image, map, f, err);
    }
    free(map);
    return status;
}

void print_heatmaps_json(const heatmap_settings *s, const heatmap_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        fputs(i ? ",{\"label\":" : "[{\"label\":", stdout);
        print_json_text(l->files[i].label);
        printf(",\"method\":\"%s\",\"path\":", methods[s->method]);
        print_json_text(l->files[i].path);
        fputs(",\"low\":", stdout);
        print_number(l->files[i].low);
        fputs(",\"high\":", stdout);
        print_number(l->files[i].high);
        putchar('}');
    }
    fputs("]", stdout);
}

void free_heatmaps(heatmap_list *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->files[i].path);
    free(l->files);
    *l = (heatmap_list){0};
}
