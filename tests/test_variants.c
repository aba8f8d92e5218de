/* test_variants.c - tiny checkpoints that cross the options of the LLaVA family, and PEFT adapters, every stage against
 * transformers and peft (tests/parity/make_variants.py). With a directory as argument: the variants in there.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "decoder.h"
#include "projector.h"
#include "scratch.h"
#include "tower.h"

#define TOLERANCE 1e-5 /* of the largest magnitude in the tensor */

static const char *root = "tests/parity/variants";

typedef struct variant {
    char name[200], dir[300], adapter[300];
} variant;

typedef struct world {
    const variant *v;
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_st *want;
    rz_net net;
} world;

static radz_error err;

static void ok(const variant *v, radz_status status)
{
    if (status) fail_msg("%s: status %d: %s", v->name, (int)status, err.message);
}

__attribute__((format(printf, 2, 3))) static const rz_st_tensor *find(const world *w, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return rz_st_find(w->want, name);
}

static float *floats(const world *w, const rz_st_tensor *t)
{
    float *f = malloc(t->n_elements * sizeof *f + 1);
    assert_non_null(f);
    ok(w->v, rz_st_to_f32(t, f, &err));
    return f;
}

/* Device floats against a tensor of the oracle's. */
static void near(const world *w, const float *got, const rz_st_tensor *t)
{
    float *want = floats(w, t), *host = malloc(t->n_elements * sizeof *host + 1);
    double scale = 0;
    assert_non_null(host);
    rz_download(w->s, host, got, t->n_elements * sizeof *host);
    ok(w->v, rz_stream_sync(w->s, &err));
    for (size_t i = 0; i < t->n_elements; i++) scale = fmax(scale, fabs((double)want[i]));
    for (size_t i = 0; i < t->n_elements; i++) {
        double off = fabs((double)host[i] - (double)want[i]) / scale;
        if (!(off <= TOLERANCE))
            fail_msg("%s: %s[%zu]: %.9g, expected %.9g (off by %.2g of %.3g)", w->v->name, t->name, i, (double)host[i],
                     (double)want[i], off, scale);
    }
    free(want);
    free(host);
}

/* ---- Stages ---------------------------------------------------------------------------- */

/* Pixels to rows of the decoder. */
static float *check_image(const world *w)
{
    const rz_st_tensor *pixels = find(w, "pixels"), *t;
    rz_projector_acts acts;
    if (!pixels) return NULL;
    float *host = floats(w, pixels), *dev = rz_arena_f32(w->s, 1, pixels->n_elements);
    rz_upload(w->s, dev, host, pixels->n_elements * sizeof *host);
    free(host);
    size_t n = 0;
    for (; (t = find(w, "tower.%zu", n)); n++) near(w, rz_tower_forward(&w->net, dev, 1, n, NULL), t);
    assert_int_equal(n, w->m->cfg.vision.layers + 1);
    float *x = rz_tower_features(&w->net, dev, 1, NULL);
    float *image = rz_projector_forward(&w->net, x, w->m->cfg.image_rows, &acts);
    near(w, image, find(w, "image"));
    return image;
}

/* Token rows and image rows of a prompt. */
static float *input_rows(const world *w, const rz_st_tensor *ids, const float *image)
{
    size_t c = w->m->cfg.text.hidden, next_image = 0;
    float *x = rz_arena_f32(w->s, ids->n_elements, c);
    for (size_t i = 0; i < ids->n_elements; i++) {
        int32_t id;
        memcpy(&id, ids->data + 4 * i, sizeof id);
        if (id < 0)
            rz_copy(w->s, x + i * c, image + next_image++ * c, c * sizeof *x);
        else
            rz_gather(w->s, x + i * c, w->m->embed->w, rz_arena_i32(w->s, &id, 1), 1, c);
    }
    return x;
}

static void check_prompt(const world *w, const char *name, const float *image)
{
    const rz_st_tensor *ids = find(w, "%s.ids", name), *t;
    size_t c = w->m->cfg.text.hidden, rows = ids->n_elements, n = 0;
    int32_t start[2] = {0, (int32_t)rows};
    rz_ragged seq = {1, start, rz_arena_i32(w->s, start, 2)};
    for (; (t = find(w, "%s.h.%zu", name, n)); n++) {
        float *x = input_rows(w, ids, image);
        near(w, rz_decoder_forward(&w->net, x, seq, n, NULL), t);
    }
    assert_int_equal(n, w->m->cfg.text.layers);
    float *h = rz_decoder_forward(&w->net, input_rows(w, ids, image), seq, n, NULL);
    near(w, rz_decoder_logits(&w->net, h + (rows - 1) * c, 1), find(w, "%s.logits", name));
}

static void test_variant(void **state)
{
    const variant *v = *state;
    world w = {.v = v};
    rz_device_options o = {"cpu", "auto", "own", 2};
    rz_source source = {.dir = v->dir, .adapter_dir = *v->adapter ? v->adapter : NULL};
    char *expected = rz_path_join(NULL, *v->adapter ? v->adapter : v->dir, "expected.safetensors");
    ok(v, rz_device_open(NULL, &o, &w.dev, &err));
    ok(v, rz_stream_open(w.dev, &w.s, &err));
    ok(v, rz_model_load_from(NULL, w.dev, &source, RZ_MODEL_INFER, 0, &w.m, &err));
    ok(v, rz_st_open(NULL, expected, RZ_FILE_READ, &w.want, &err));
    w.net = (rz_net){.model = w.m, .s = w.s};
    const float *image = check_image(&w);
    check_prompt(&w, "a", image);
    check_prompt(&w, "b", image);
    assert_int_equal(w.m->n_unused, 0);
    rz_free(NULL, expected);
    rz_st_close(w.want);
    rz_model_unload(w.m);
    rz_stream_close(w.s);
    rz_device_close(w.dev);
}

/* ---- Main ---------------------------------------------------------------------------------- */

static size_t read_index(variant *v, size_t max)
{
    char line[300], base[150], adapter[150], path[300];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/index.tsv", root);
    FILE *f = fopen(path, "r");
    while (f && n < max && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%149s %149s", base, adapter) != 2) continue;
        bool plain = !strcmp(adapter, "-");
        snprintf(v[n].name, sizeof v->name, "%s%s%.40s", base, plain ? "" : " with ", plain ? "" : adapter);
        snprintf(v[n].dir, sizeof v->dir, "%.140s/%s", root, base);
        if (!plain) snprintf(v[n].adapter, sizeof v->adapter, "%.140s/%s", v[n].dir, adapter);
        n++;
    }
    if (f) fclose(f);
    return n;
}

int main(int argc, char **argv)
{
    static variant variants[64];
    static struct CMUnitTest tests[RZ_COUNT(variants)];
    if (argc > 1) root = argv[1];
    size_t n = read_index(variants, RZ_COUNT(variants));
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){variants[i].name, test_variant, NULL, NULL, &variants[i]};
    if (n < 12) return fprintf(stderr, "%s/index.tsv: %zu variants, expected 12 or more\n", root, n), 1;
    return _cmocka_run_group_tests("variants", tests, n, NULL, NULL);
}
