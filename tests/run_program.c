/* Runs a program in a child process.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"
#include "base.h"
#include "run_program.h"

const char *run_folder = "/tmp";

static void child(const char *const *argv, const char *input, int output)
{
    int in = open(input ? input : "/dev/null", O_RDONLY);
    int out = output == TO_FULL ? open("/dev/full", O_WRONLY)
                                : open(fixture_path(run_folder, "stdout"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int error = open(fixture_path(run_folder, "stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(in, 0), dup2(out, 1), dup2(error, 2);
    for (int fd = 3; fd < 64; fd++) close(fd);
    if (output == TO_NOTHING) close(1);
    alarm(120);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

run run_program(const char *const *argv, const char *input, int output)
{
    run r;
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) child(argv, input, output);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status)) fail_msg("ended by signal %d", WTERMSIG(status));
    r.status = WEXITSTATUS(status);
    if (r.status == 127) fail_msg("%s does not run: is it built?", argv[0]);
    r.out = output == TO_FILE ? fixture_read(fixture_path(run_folder, "stdout"), &r.n_out) : strdup("");
    r.err = fixture_read(fixture_path(run_folder, "stderr"), NULL);
    return r;
}

void run_done(run *r)
{
    free(r->out);
    free(r->err);
}

void run_expect(const run *r, int status, const char *out_words, const char *err_words)
{
    if (r->status != status) fail_msg("exit %d, not %d; stderr: %s", r->status, status, r->err);
    if (out_words && !strstr(r->out, out_words)) fail_msg("'%s' not in stdout: %s", out_words, r->out);
    if (err_words && !strstr(r->err, err_words)) fail_msg("'%s' not in stderr: %s", err_words, r->err);
}

void run_allow_mpi(void)
{
    /* More processes than cores, as root in a container, without ptrace: what a test machine is. */
    static const char *const settings[] = {"OMPI_ALLOW_RUN_AS_ROOT",
                                           "1",
                                           "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                                           "1",
                                           "OMPI_MCA_rmaps_base_oversubscribe",
                                           "1",
                                           "OMPI_MCA_hwloc_base_binding_policy",
                                           "none",
                                           "OMPI_MCA_btl",
                                           "self,vader",
                                           "OMPI_MCA_btl_vader_single_copy_mechanism",
                                           "none",
                                           "OMPI_MCA_plm_rsh_agent",
                                           ""};
    for (size_t i = 0; i < RZ_COUNT(settings); i += 2) setenv(settings[i], settings[i + 1], 1);
}
