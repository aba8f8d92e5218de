/* radz-eval - how good a model is on films with labels. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "processes.h"
#include "progress.h"

static const char usage_line[] = "usage: radz-eval [--model DIR]... --data FILE.csv --out DIR [--preset NAME]\n"
                                 "                 [--method M[,M...]] [--threshold RULE] [OPTION...]\n";

static const char help_text[] =
    "\n"
    "Evaluates a model on films with labels: AUC, AUPRC, F1, accuracy, MCC, sensitivity,\n"
    "specificity, Brier score and calibration error per class, per set and as macro means, with\n"
    "bootstrap intervals by patient. Writes report.json, report.csv and report.html. Several\n"
    "models and methods stand beside each other, with paired differences to the first row.\n"
    "Under mpirun each process takes a shard of the films, and one writes the report.\n"
    "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "Models\n"
    "  --model and --adapter may be given several times: rows of their own in one report. The\n"
    "  first adapter goes with the first model, and so on ('-': none); the last model with all\n"
    "  further ones\n"
    "  --name TEXT     what a model is called there, in the same order; else its folder\n"
    "\n"
    "Films\n"
    "  --data FILE     CSV with a header: path; labels ('|' between them) or one column per\n"
    "                  class (1, 0, -1 not sure, empty); optional patient, set, split\n"
    "  --images DIR    paths in it are relative to this; else to the file's folder\n"
    "  --split NAME    rows to evaluate, or all; else test, or val where there is no test\n"
    "  --sets A,B      these sets only; nih stands for nih64 and nih512 too\n"
    "  --label-map FILE  CSV from,to[,set]: label of the data -> class of the bank\n"
    "  --boxes FILE    CSV path,class,x,y,width,height in the film's pixels: heat maps are\n"
    "                  measured on these films (pointing game, deletion, insertion)\n"
    "  --box-steps N   of deletion and insertion (10), 0 for the pointing game alone\n"
    "  --uncertain WHAT  labels of -1: ignore (default), positive, negative\n"
    "\n"
    "Scores\n"
    "  --preset NAME   paper-table1, paper-table2, paper-table3, medklip, chexzero; options\n"
    "                  that are given besides win\n"
    "  --method LIST   img_anchor (default), img_text, fused, pos_neg_pair, hidden, head;\n"
    "                  likelihood, likelihood_mean, options, cot: what the model says or\n"
    "                  writes of the classes; embed: the score of the preset\n"
    "  --leave-out     a method that the model cannot run is named in the report only\n"
    "  --question TEXT, --prefix TEXT, --system TEXT, --chat-template NAME, --max-tokens N\n"
    "                  how the model is asked; {classes} in the question\n"
    "  --feature NAME  global (default), local, both\n"
    "  --class-kind K  auto (default), reference, exclusive, independent\n"
    "  --tau X         temperature; else the model's own\n"
    "  --template TEXT, --negative TEXT  with {c} for the class; may be given several times\n"
    "  --bank FILE | --diseases FILE | --classes A,B,C  the classes; else the model's bank\n"
    "\n"
    "Thresholds and calibration\n"
    "  --threshold RULE  validation (default), validation-youden, validation-mcc, fixed,\n"
    "                  test-max-f1, test-youden, test-mcc, calibration\n"
    "  --fixed-threshold X  0.5\n"
    "  --validation FILE  CSV whose rows choose thresholds; else rows of --validation-split\n"
    "  --validation-split NAME  val\n"
    "  --strict        positive only above the threshold, not at it\n"
    "  --both-classes  F1 is the mean over positives and negatives\n"
    "  --macro-reference  the reference class counts in the macro mean\n"
    "  --calibrate KIND  none (default), platt, isotonic, fitted on the validation rows;\n"
    "                  written to calibration-METHOD.json\n"
    "  --calibration FILE  use such a file\n"
    "  --bins N        of the calibration error (10)\n"
    "  --bootstrap N   rounds (1000), 0 for none; --confidence X (0.95); --seed N\n"
    "\n"
    "Work and output\n"
    "  --out DIR       where the report goes\n"
    "  --cache DIR     vectors that were computed before; else OUT/cache\n"
    "  --no-cache      keep none\n"
    "  --shard I/N     embed every N-th film from the I-th on, write no report\n"
    "  --merge N       the report of N shards of the same --out and --cache\n"
    "  --scores        write scores.csv too: every film, method and class\n"
    "  --tsne N        points of the t-SNE figure (1000), 0 for none\n"
    "  --examples N    best and worst films per class (3), with heat maps\n"
    "  --no-heatmaps   without them\n"
    "  --quiet         no progress\n" ENGINE_HELP "  --help, --version\n"
    "\n"
    "Exit status: 0 done; 1 done, but films failed or the output could not be written;\n"
    "2 wrong usage or input. Ctrl-C stops; what was computed is in the cache.\n";

typedef struct settings {
    engine_options engine;
    radz_eval_options o;
    radz_method_options writing;
    const char *preset, *bank, *diseases, *classes, *shard;
    text_list models, adapters, names, templates, negatives;
    processes *all;
    int feature, class_kind, n_bins, n_rounds, n_tsne, n_examples, n_box_steps, n_merge;
    bool no_cache, quiet;
    size_t n_failed;
    bool started;
} settings;

/* A model with its classes. */
typedef struct contender {
    engine e;
    radz_bank *bank; /* NULL: its own */
} contender;

/* ---- Command line ---- */

/* The preset goes first, so that what is given besides it wins. */
static int take_preset(settings *s, int argc, char **argv)
{
    radz_error err;
    const char *name = early_value(argc, argv, "preset");
    if (name && radz_eval_options_preset(&s->o, name, &err)) return usage("--preset: %s", err.message);
    return 0;
}

static int take_shard(settings *s)
{
    char after;
    if (s->n_merge) {
        if (s->shard) return usage("--shard and --merge exclude each other");
        s->o.merge = 1, s->o.n_shards = s->n_merge;
    }
    if (s->shard && (sscanf(s->shard, "%d/%d%c", &s->o.shard, &s->o.n_shards, &after) != 2 || s->o.shard < 1 ||
                     s->o.shard > s->o.n_shards || s->o.n_shards > 100000))
        return usage("--shard: expected I/N such as 1/4, got %s", s->shard);
    return 0;
}

static int take_rest(settings *s)
{
    if (!!s->bank + !!s->diseases + !!s->classes > 1)
        return usage("--bank, --diseases and --classes exclude each other");
    if (s->no_cache && s->o.cache_dir) return usage("--cache and --no-cache exclude each other");
    if (s->no_cache) s->o.cache_dir = "";
    s->o.score.feature = (radz_score_feature)s->feature;
    s->o.score.classes = (radz_score_classes)s->class_kind;
    if (s->templates.n) s->o.score.templates = s->templates.items, s->o.score.n_templates = s->templates.n;
    if (s->negatives.n) s->o.score.negatives = s->negatives.items, s->o.score.n_negatives = s->negatives.n;
    s->o.n_bins = (size_t)s->n_bins, s->o.n_rounds = (size_t)s->n_rounds;
    s->o.n_tsne = (size_t)s->n_tsne, s->o.n_examples = (size_t)s->n_examples;
    s->o.n_box_steps = (size_t)s->n_box_steps;
    return take_shard(s);
}

/* 0 or an exit status. */
static int parse_settings(settings *s, int argc, char **argv)
{
    radz_eval_options *o = &s->o;
    radz_eval_options_init(o);
    radz_method_options_init(&s->writing);
    o->writing = &s->writing;
    int n = 0, status = take_preset(s, argc, argv);
    if (status) return status;
    s->feature = (int)o->score.feature, s->class_kind = (int)o->score.classes;
    s->n_bins = (int)o->n_bins, s->n_rounds = (int)o->n_rounds;
    s->n_tsne = (int)o->n_tsne, s->n_examples = (int)o->n_examples;
    s->n_box_steps = (int)o->n_box_steps;
    option_entry known[] = {
        {"model", .texts = &s->models},
        {"adapter", .texts = &s->adapters},
        {"name", .texts = &s->names},
        ENGINE_REST(s->engine),
        {"data", .text = &o->manifest, .required = true},
        {"out", .text = &o->out_dir, .required = true},
        {"preset", .text = &s->preset},
        {"images", .text = &o->image_root},
        {"split", .text = &o->split},
        {"sets", .text = &o->sets},
        {"label-map", .text = &o->label_map},
        {"boxes", .text = &o->boxes},
        {"box-steps", .integer = &s->n_box_steps, .max = 1000000},
        {"uncertain", .text = &o->uncertain, .words = "ignore|positive|negative"},
        {"method", .text = &o->methods},
        {"leave-out", .on = &o->leave_out},
        {"question", .text = &s->writing.prompt},
        {"prefix", .text = &s->writing.prefix},
        {"system", .text = &s->writing.system},
        {"chat-template", .text = &s->writing.chat_template},
        {"max-tokens", .integer = &s->writing.max_tokens, .min = 1, .max = 1 << 20},
        {"feature", .choice = &s->feature, .words = "global|local|both"},
        {"class-kind", .choice = &s->class_kind, .words = "auto|reference|exclusive|independent"},
        {"tau", .real = &o->score.tau, .min = 1e-6, .max = 1e6},
        {"template", .texts = &s->templates},
        {"negative", .texts = &s->negatives},
        {"bank", .text = &s->bank},
        {"diseases", .text = &s->diseases},
        {"classes", .text = &s->classes},
        {"threshold", .text = &o->threshold},
        {"fixed-threshold", .real = &o->fixed_threshold, .min = 0, .max = 1},
        {"validation", .text = &o->validation},
        {"validation-split", .text = &o->validation_split},
        {"strict", .on = &o->strict},
        {"both-classes", .on = &o->both_classes},
        {"macro-reference", .on = &o->macro_reference},
        {"calibrate", .text = &o->calibrate, .words = "none|platt|isotonic"},
        {"calibration", .text = &o->score.calibration},
        {"bins", .integer = &s->n_bins, .min = 1, .max = 1000},
        {"bootstrap", .integer = &s->n_rounds, .max = 1000000},
        {"confidence", .real = &o->confidence, .min = 0.01, .max = 0.999999},
        {"seed", .unsigned64 = &o->seed},
        {"cache", .text = &o->cache_dir},
        {"no-cache", .flag = &s->no_cache},
        {"shard", .text = &s->shard},
        {"merge", .integer = &s->n_merge, .min = 1, .max = 100000},
        {"scores", .on = &o->write_scores},
        {"tsne", .integer = &s->n_tsne, .max = 1000},
        {"examples", .integer = &s->n_examples, .max = 100},
        {"no-heatmaps", .on = &o->no_heatmaps},
        {"quiet", .flag = &s->quiet},
    };
    status = parse_command_line(known, COUNT(known), argc, argv, &n);
    if (status) return status;
    if (n) return usage("unexpected argument %s", argv[0]);
    return take_rest(s);
}

/* ---- Progress ---- */

static void print_time(double seconds)
{
    char left[32];
    format_time(left, sizeof left, seconds);
    if (seconds >= 0) fprintf(stderr, ", %s left", left);
}

static int on_progress(const radz_eval_progress *p, void *user)
{
    enum { WIDTH = 30 };
    settings *s = user;
    s->n_failed = p->n_failed;
    s->started = true;
    if (s->quiet || s->all->comm.rank || !on_terminal()) return interrupted;
    const bool films = strcmp(p->stage, "films") == 0;
    int full = p->stage_n ? (int)(WIDTH * p->stage_done / p->stage_n) : WIDTH;
    fputs("\r\033[K[", stderr);
    for (int i = 0; i < WIDTH; i++) fputc(i < full ? '#' : '.', stderr);
    fprintf(stderr, "] %zu/%zu %s", p->stage_done, p->stage_n, p->stage);
    if (films && p->n_cached) fprintf(stderr, ", %zu from the cache", p->n_cached);
    if (films && p->n_failed) fprintf(stderr, ", %zu failed", p->n_failed);
    print_time(p->seconds_left);
    if (p->stage_done == p->stage_n) fputs("\r\033[K", stderr);
    fflush(stderr);
    return interrupted;
}

/* ---- Models ---- */

static int open_bank(const settings *s, const engine *e, radz_bank **bank)
{
    radz_error err;
    radz_status status = RADZ_OK;
    if (s->classes) return build_classes(e->session, s->classes, bank);
    if (s->diseases)
        status = radz_bank_build_file(e->session, s->diseases, bank, &err);
    else if (s->bank)
        status = radz_bank_open(e->model, s->bank, bank, &err);
    if (!status) return 0;
    complain("%s", err.message);
    return EXIT_USAGE;
}

/* The i-th of a list, its last one for what comes after; NULL: the list is empty, or says '-'. */
static const char *nth(const text_list *l, size_t i)
{
    const char *text = !l->n ? NULL : l->items[i < l->n ? i : l->n - 1];
    return text && strcmp(text, "-") != 0 ? text : NULL;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Adapters of one model are told apart by their own folders. */
static const char *name_of(const settings *s, size_t i)
{
    const char *adapter = i < s->adapters.n ? nth(&s->adapters, i) : NULL;
    if (i < s->names.n) return s->names.items[i];
    return adapter && s->adapters.n > 1 ? last_part(adapter) : NULL;
}

static size_t count_models(const settings *s)
{
    size_t n = s->models.n > s->adapters.n ? s->models.n : s->adapters.n;
    return n ? n : 1;
}

static int open_contenders(settings *s, contender *all, radz_eval_model *others, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        engine_options o = s->engine;
        o.model = nth(&s->models, i), o.adapter = i < s->adapters.n ? nth(&s->adapters, i) : NULL;
        all[i].e.runtime = i ? all[0].e.runtime : NULL;
        int bad = open_engine(&all[i].e, &o);
        if (!bad) bad = open_bank(s, &all[i].e, &all[i].bank);
        if (bad) return bad;
        if (i) others[i - 1] = (radz_eval_model){all[i].e.session, all[i].bank, name_of(s, i)};
        if (!s->quiet && !s->all->comm.rank)
            fprintf(stderr, "%s %s, %s\n", i ? "and model" : "model", radz_model_name(all[i].e.model),
                    radz_model_device(all[i].e.model));
    }
    s->o.name = name_of(s, 0), s->o.others = others, s->o.n_others = n - 1;
    if (!s->quiet && !s->all->comm.rank) fprintf(stderr, "libradz %s. %s\n", radz_version(), radz_disclaimer());
    return 0;
}

static void close_contenders(contender *all, size_t n)
{
    for (size_t i = n; i--;) {
        radz_bank_close(all[i].bank);
        if (i) all[i].e.runtime = NULL; /* the first one's */
        close_engine(&all[i].e);
    }
}

/* ---- The work ---- */

static int evaluate(settings *s, const contender *first)
{
    radz_error err;
    radz_status status = radz_evaluate(first->e.session, first->bank, &s->o, &err);
    if (!status) return 0;
    complain("%s", err.message);
    return status == RADZ_E_CANCELLED || (status == RADZ_E_IO && s->started) ? EXIT_FILM : EXIT_USAGE;
}

/* Each process a shard; when all of them are on disk, the first one reads them. */
static int evaluate_together(settings *s, const contender *first)
{
    const radz_comm *comm = &s->all->comm;
    int *statuses = need(calloc((size_t)comm->size, sizeof *statuses));
    s->o.shard = comm->rank + 1, s->o.n_shards = comm->size;
    int mine = evaluate(s, first), broken = comm->gather(&mine, sizeof mine, statuses, comm->user);
    for (int i = 0; i < comm->size && !broken && !mine; i++) {
        if (statuses[i] && !comm->rank) complain("process %d of %d failed: no report", i + 1, comm->size);
        mine = statuses[i];
    }
    free(statuses);
    if (broken) complain("the processes have lost each other");
    if (broken || mine || comm->rank) return broken ? EXIT_FILM : mine;
    s->o.shard = 0, s->o.merge = 1;
    return evaluate(s, first);
}

static int report(const settings *s)
{
    if (s->all->comm.rank) return 0;
    if (s->n_failed) complain("%zu films could not be read: see the report", s->n_failed);
    if (s->shard)
        printf("%s: shard %s is done\n", s->o.out_dir, s->shard);
    else
        printf("%s/report.html\n%s/report.json\n%s/report.csv\n", s->o.out_dir, s->o.out_dir, s->o.out_dir);
    return output_done() && !s->n_failed ? 0 : EXIT_FILM;
}

static int run(settings *s)
{
    const size_t n = count_models(s);
    contender *all = need(calloc(n, sizeof *all));
    radz_eval_model *others = need(calloc(n, sizeof *others));
    s->o.progress_fn = on_progress, s->o.user = s;
    int status = open_contenders(s, all, others, n);
    if (!status) status = s->all->comm.size > 1 ? evaluate_together(s, all) : evaluate(s, all);
    if (!status) status = report(s);
    close_contenders(all, n);
    free(all);
    free(others);
    return status;
}

static int run_here(settings *s)
{
    const processes *all = s->all;
    if (all->comm.size > 1 && s->o.n_shards)
        return usage("--shard and --merge: under mpirun the films are dealt out as they are");
    catch_interrupts(all->comm.size > 1);
    if (all->n_local > 1 && !s->engine.n_threads) s->engine.n_threads = share_cores(all);
    return run(s);
}

int main(int argc, char **argv)
{
    processes all;
    settings s = {.all = &all};
    program_name = "radz-eval", program_usage = usage_line, program_help = help_text;
    int status = begin_program();
    if (!status) status = parse_settings(&s, argc, argv);
    if (!status) status = join_processes(&all);
    if (status) return status;
    status = run_here(&s);
    leave_processes(&all, 0);
    free(s.models.items);
    free(s.adapters.items);
    free(s.names.items);
    free(s.templates.items);
    free(s.negatives.items);
    return status;
}
