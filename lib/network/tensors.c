/* tensors.c - which tensor of the files each parameter takes; those that are missing, of another shape or left over.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tensors.h"

#include <stdio.h>

#include "lora.h"
#include "weights.h"

static bool in_tower(const rz_param *p)
{
    return !strncmp(p->name, "vision_tower.", 13);
}

const rz_st_tensor *rz_tensor_of(const rz_model *m, const rz_param *p)
{
    rz_weights *files = m->tower_files && in_tower(p) ? m->tower_files : m->files;
    if (p->adapter) return NULL;
    if (m->radz_files && p->radz) {
        rz_weights_find(files, p->name); /* the base's own is not left over: it has been replaced */
        files = m->radz_files;
    }
    const rz_st_tensor *t = rz_weights_find(files, p->name),
                       *own = m->lora ? rz_lora_replacement(m->lora, p->name) : NULL;
    if (own) t = own;
    /* some checkpoints tie the head without saying so */
    return !t && p == m->lm_head ? rz_weights_find(files, m->embed->name) : t;
}

radz_status rz_tensor_quantised(const rz_model *m, const rz_st_tensor *t, rz_quantised *out, radz_error *err)
{
    rz_weights *const files[] = {m->files, m->radz_files, m->tower_files};
    const rz_st_tensor *scale = NULL;
    char name[300];
    snprintf(name, sizeof name, "%.280s_scale", t->name);
    for (size_t i = 0; i < RZ_COUNT(files) && !scale; i++)
        if (files[i] && rz_weights_holds(files[i], t)) scale = rz_weights_find(files[i], name);
    return rz_quantised_of(t, scale, out, err);
}

radz_status rz_tensor_to_f32(const rz_model *m, const rz_st_tensor *t, float *out, radz_error *err)
{
    rz_quantised q;
    if (!rz_st_is_quantised(t)) return rz_st_to_f32(t, out, err);
    RZ_TRY(rz_tensor_quantised(m, t, &q, err));
    for (size_t r = 0; r < q.rows; r++) rz_quantised_row(&q, r, out + r * q.cols);
    return RADZ_OK;
}

/* ---- Missing, or of another shape ------------------------------------------------------- */

#define MESSAGE_BYTES sizeof(((radz_error *)0)->message)

/* What is wrong with some tensors: the names that fit on the line of an error, and how many there are. */
typedef struct fault {
    const rz_model *m;
    const char *dir, *one, *many, *separator; /* "tensor %s ONE", "%zu tensors MANY: %s%s..." */
    size_t n, n_named, len, room;
    bool full;
    char names[MESSAGE_BYTES];
} fault;

static fault fault_start(const rz_model *m, const char *dir, const char *one, const char *many, const char *separator)
{
    fault f = {.m = m, .dir = dir, .one = one, .many = many, .separator = separator};
    size_t taken = strlen(dir) + strlen(many) + sizeof ": 12345678 tensors :  and 12345678 more";
    f.room = taken < sizeof f.names ? sizeof f.names - taken : 0;
    return f;
}

static void fault_add(fault *f, const char *tensor)
{
    const char *before = f->n_named ? f->separator : "";
    size_t n = strlen(before) + strlen(tensor);
    f->n++;
    rz_log(f->m->cfg.host, RADZ_LOG_WARNING, "%s: tensor %s %s", f->dir, tensor, f->one);
    f->full |= f->n_named && f->len + n > f->room;
    if (f->full) return;
    snprintf(f->names + f->len, sizeof f->names - f->len, "%s%s", before, tensor);
    f->len += n < sizeof f->names - f->len ? n : sizeof f->names - f->len - 1;
    f->n_named++;
}

static radz_status fault_report(const fault *f, radz_error *err)
{
    if (!f->n) return RADZ_OK;
    if (f->n == 1) return rz_fail(err, RADZ_E_MISMATCH, "%s: tensor %s %s", f->dir, f->names, f->one);
    if (f->n == f->n_named)
        return rz_fail(err, RADZ_E_MISMATCH, "%s: %zu tensors %s: %s", f->dir, f->n, f->many, f->names);
    return rz_fail(err, RADZ_E_MISMATCH, "%s: %zu tensors %s: %s and %zu more", f->dir, f->n, f->many, f->names,
                   f->n - f->n_named);
}

static void shape_text(char *out, size_t size, size_t n, const uint64_t *dims64, const size_t *dims)
{
    size_t used = 0;
    *out = 0;
    for (size_t i = 0; i < n && used < size; i++) {
        // cppcheck-suppress nullPointer ; one of the two is given
        unsigned long long d = dims64 ? dims64[i] : dims[i];
        int w = snprintf(out + used, size - used, "%s%llu", i ? "x" : "", d);
        used += w > 0 ? (size_t)w : size;
    }
}

/* Of two in a byte, both count. */
static uint64_t columns(const rz_st_tensor *t, size_t dim)
{
    return dim == 1 && !strcmp(t->dtype, "U8") ? 2 * t->dims[dim] : t->dims[dim];
}

static bool same_shape(const rz_param *p, const rz_st_tensor *t)
{
    bool same = t->n_dims == p->n_dims;
    for (size_t i = 0; same && i < p->n_dims; i++) same = columns(t, i) == p->dims[i];
    return same;
}

bool rz_tensor_fits(const rz_model *m, const rz_param *p)
{
    const rz_st_tensor *t = rz_tensor_of(m, p);
    return t && same_shape(p, t);
}

static void check_shape(fault *f, const rz_param *p, const rz_st_tensor *t)
{
    char found[96], expected[96], text[MESSAGE_BYTES];
    if (same_shape(p, t)) return;
    shape_text(found, sizeof found, t->n_dims, t->dims, NULL);
    shape_text(expected, sizeof expected, p->n_dims, NULL, p->dims);
    snprintf(text, sizeof text, "'%.250s': shape %s, expected %s", t->name, found, expected);
    fault_add(f, text);
}

radz_status rz_tensors_check(const rz_model *m, const char *dir, const bool *optional, radz_error *err)
{
    fault missing = fault_start(m, dir, "is missing", "are missing", ", ");
    fault shapes = fault_start(m, dir, "from the configuration", "have other shapes than the configuration", "; ");
    for (size_t i = 0; i < m->n_params; i++) {
        const rz_param *p = &m->params[i];
        const rz_st_tensor *t = rz_tensor_of(m, p);
        char quoted[300];
        if (p->fresh) continue;
        snprintf(quoted, sizeof quoted, "'%s'", p->name);
        if (t)
            check_shape(&shapes, p, t);
        else if (!optional[i])
            fault_add(&missing, quoted);
    }
    if (missing.n + shapes.n && m->cfg.quantised_by[0]) /* beside floats the key is one that was left over */
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "%s: config.json: quantization_config: weights as '%s' makes them are not supported: take the "
                       "model in F16 or BF16, and radz-quantize for integers",
                       dir, m->cfg.quantised_by);
    RZ_TRY(fault_report(&missing, err));
    return fault_report(&shapes, err);
}

/* ---- Left over ----------------------------------------------------------------------------- */

radz_status rz_tensors_of_adapter(const rz_model *m, radz_error *err)
{
    if (!m->lora) return RADZ_OK;
    fault f =
        fault_start(m, rz_lora_dir(m->lora), "belongs to no part of the model", "belong to no part of the model", ", ");
    const char *name;
    for (size_t i = 0; (name = rz_lora_unused(m->lora, &i));) {
        char quoted[300];
        snprintf(quoted, sizeof quoted, "'%.290s'", name);
        fault_add(&f, quoted);
    }
    return fault_report(&f, err);
}

radz_status rz_tensors_left_over(rz_model *m, const char *dir, radz_error *err)
{
    size_t n = m->files ? rz_weights_unused(m->files, NULL, 0) : 0;
    if (!n) return RADZ_OK;
    m->unused = rz_calloc(m->cfg.host, n, sizeof *m->unused);
    if (!m->unused) return RZ_NO_MEMORY(err, "names of tensors");
    m->n_unused = rz_weights_unused(m->files, m->unused, n);
    rz_log(m->cfg.host, RADZ_LOG_WARNING, "%s: %zu tensors are not used, '%s' for one", dir, n, m->unused[0]);
    for (size_t i = 0; i < n; i++) rz_log(m->cfg.host, RADZ_LOG_INFO, "%s: tensor '%s' is not used", dir, m->unused[i]);
    return RADZ_OK;
}
