/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that are killed around the commands that carry no number of their own: OpenSession, CreateService,
 * CloseService, CloseSession (and, for company, a numbered Increment and a query). Each is answered once, without an
 * error, and has been done once: every applied command takes an index, so the partition's last index is the number of
 * commands sent; a second CloseSession or CloseService would be FORBIDDEN; sessions are counted.
 *
 * The worker's moment of death is chosen in three ways: before it has looked at the request (it is stopped, then
 * killed); after a number of its instructions, counted by single-stepping it from the moment that the request is in its
 * ring; and in the middle of hundreds of requests in flight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <millrace/limits.h>
#include <millrace/raw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "proto/reader.h"
#include "tests/support/live_node.h"
#include "tests/support/requests.h"
#include "tests/support/wait.h"

#define MOMENTS_SYNC 3   /* at which a worker dies in the course of one request */
#define MOMENTS_MEMORY 6 /* where a new one does not wait for the disk */
#define WAVE 200         /* requests in flight at once */
#define TICK_MICROSECONDS 5000
#define STEPS_MOST 10000000 /* no request is followed further than so many instructions */

static struct node node;
static mr_client *client;
static struct request request;
static uint64_t commands;   /* sent so far: the index of the last one, for each takes one */
static cpu_set_t own_cores; /* of this process, while it is tied to one of them (`tied`) */
static bool tied;

/* What came for one request. */
struct answer {
    uint64_t request;
    unsigned frames;
    enum mr_status status;
    char message[160];
    struct command_output output; /* `part` of it points nowhere any more */
    int64_t number;               /* of a counter's output */
};

static int64_t number_in(struct slice message)
{
    struct field_reader reader = field_reader(message);

    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            return (int64_t)reader.value;
    return 0;
}

static void keep_answer(mr_client *handle, const struct mr_result *result)
{
    struct answer *answer = result->arg;
    struct slice body = {.data = result->as.raw.data, .size = result->as.raw.size}, part = {0};

    (void)handle;
    answer->frames++;
    answer->status = result->status;
    snprintf(answer->message, sizeof(answer->message), "%.*s", (int)result->message.size,
             (const char *)result->message.data);
    if (result->status != MR_OK)
        return;
    if (read_partition_command_output(body.data, (uint32_t)body.size, &answer->output, &part) != READ_OK)
        return;
    answer->number = number_in(part);
}

/* Puts what `request` holds into the ring; its answer comes to *answer. */
static void start(enum mr_kind kind, struct answer *answer)
{
    struct mr_then then = {.done = keep_answer, .arg = answer};
    void *body = NULL;
    enum mr_status status;

    *answer = (struct answer){0};
    while ((status = mr_reserve(client, 1, kind, 0, request.size, &body)) == MR_AGAIN)
        assert_int_equal(mr_run(client, (int64_t)WAIT_MS * 1000000, NULL), MR_OK);
    if (status != MR_OK)
        fail_msg("mr_reserve: %s", mr_message(client));
    memcpy(body, request.bytes, request.size);
    assert_int_equal(mr_commit(client, request.size, then, &answer->request), MR_OK);
    if (kind == MR_COMMAND)
        commands++;
}

/* Meets answers until this one is there. */
static void finish(const struct answer *answer)
{
    while (answer->frames == 0)
        if (mr_run(client, (int64_t)WAIT_MS * 1000000, NULL) != MR_OK)
            fail_msg("a request is not answered: %s", mr_message(client));
    if (answer->status != MR_OK)
        fail_msg("%s: %s", mr_status_name(answer->status), answer->message);
    assert_int_equal(answer->frames, 1);
}

static struct answer ask(enum mr_kind kind)
{
    struct answer answer;

    start(kind, &answer);
    finish(&answer);
    return answer;
}

static uint64_t open_session(void)
{
    request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
    return ask(MR_COMMAND).output.id;
}

static uint64_t create_counter(uint64_t session, const char *name)
{
    request_create_service(&request, session, COUNTER_TYPE, "", name);
    return ask(MR_COMMAND).output.id;
}

/* No request was lost, none applied twice, and no answer comes any more. */
static void check_quiet(uint64_t sessions)
{
    unsigned completed = 0;

    assert_int_equal(mr_run(client, MR_NO_WAIT, &completed), MR_AGAIN);
    assert_int_equal(completed, 0);
    struct node_partition now = {0};
    assert_true(wait_for((now = node_partition(&node, 1)).applied == commands && now.sessions == sessions));
}

static void begin(const char *durability)
{
    const char *const options[] = {"--durability", durability, "--idle", "block", NULL};

    node_begin(&node, options);
    commands = 0;
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
}

static void end(void)
{
    mr_close(client);
    request_free(&request);
    request = (struct request){0};
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

/* ---- what is asked while workers die ---- */

/* The standing of a partition before the request in question, made anew for every death. */
struct scene {
    uint64_t session, counter;
    uint64_t sessions; /* open besides it */
    char name[32];
};

enum kind { OPEN_SESSION, CREATE_SERVICE, REOPEN_SERVICE, CLOSE_SERVICE, CLOSE_SESSION, INCREMENT, GET, KINDS };
static const char *const kind_names[KINDS] = {
    "OpenSession", "CreateService", "CreateService again", "CloseService", "CloseSession", "Increment", "Get"};

static void set_scene(struct scene *scene, unsigned n)
{
    scene->session = open_session();
    scene->sessions++;
    snprintf(scene->name, sizeof(scene->name), "counter-%u", n);
    scene->counter = create_counter(scene->session, scene->name);
}

static enum mr_kind build(const struct scene *scene, enum kind kind)
{
    struct payload payload = number_payload(1), nothing = {.size = 0};

    switch (kind) {
    case OPEN_SESSION:
        request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
        break;
    case CREATE_SERVICE:
        request_create_service(&request, scene->session, MAP_TYPE, "", "another");
        break;
    case REOPEN_SERVICE:
        request_create_service(&request, scene->session, COUNTER_TYPE, "", scene->name);
        break;
    case CLOSE_SERVICE:
        request_close_service(&request, scene->session, scene->counter);
        break;
    case CLOSE_SESSION:
        request_close_session(&request, scene->session);
        break;
    case INCREMENT:
        request_command(&request, scene->session, scene->counter, 1, "Increment", payload_slice(&payload));
        break;
    case GET:
    case KINDS:
        request_query(&request, scene->session, scene->counter, "Get", payload_slice(&nothing));
        return MR_QUERY;
    }
    return MR_COMMAND;
}

/* It has been answered: was it done, and once? The scene is cleared. */
static void check_done(struct scene *scene, enum kind kind, const struct answer *answer)
{
    struct payload payload = number_payload(1);
    struct answer next;

    if (kind != GET)
        assert_int_equal(answer->output.index, commands);
    check_quiet(scene->sessions + (kind == OPEN_SESSION) - (kind == CLOSE_SESSION));
    switch (kind) {
    case OPEN_SESSION:
        assert_int_equal(answer->output.id, commands);
        request_close_session(&request, answer->output.id);
        ask(MR_COMMAND);
        break;
    case CREATE_SERVICE:
        /* another death's scene may have made it before; it is the same to all */
        request_create_service(&request, scene->session, MAP_TYPE, "", "another");
        assert_int_equal(ask(MR_COMMAND).output.id, answer->output.id);
        break;
    case REOPEN_SERVICE:
        assert_int_equal(answer->output.id, scene->counter);
        break;
    case CLOSE_SERVICE:
        request_command(&request, scene->session, scene->counter, 1, "Increment", payload_slice(&payload));
        start(MR_COMMAND, &next);
        while (next.frames == 0)
            assert_int_equal(mr_run(client, (int64_t)WAIT_MS * 1000000, NULL), MR_OK);
        assert_int_equal(next.status, MR_FORBIDDEN);
        break;
    case CLOSE_SESSION:
        scene->sessions--;
        return;
    case INCREMENT:
        assert_int_equal(answer->number, 1);
        request_command(&request, scene->session, scene->counter, 1, "Increment", payload_slice(&payload));
        next = ask(MR_COMMAND); /* again: not applied again */
        assert_int_equal(next.number, 1);
        assert_int_equal(next.output.index, answer->output.index);
        request_command(&request, scene->session, scene->counter, 2, "Increment", payload_slice(&payload));
        assert_int_equal(ask(MR_COMMAND).number, 2);
        break;
    case GET:
    case KINDS:
        break;
    }
    request_close_session(&request, scene->session);
    ask(MR_COMMAND);
    scene->sessions--;
}

/* ---- deaths ---- */

/* The worker, stopped, finds the request in its ring when it is dead. */
static void test_before_it_is_read(void **state)
{
    struct scene scene = {0};

    begin(*state);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct answer answer;
        set_scene(&scene, kind);
        pid_t worker = node_partition(&node, 1).pid;
        assert_int_equal(kill(worker, SIGSTOP), 0);
        start(build(&scene, kind), &answer);
        mr_flush(client);
        assert_int_equal(kill(worker, SIGKILL), 0);
        finish(&answer);
        check_done(&scene, kind, &answer);
    }
    assert_int_equal(node_partition(&node, 1).restarts, KINDS);
    end();
}

static void tick(int number)
{
    (void)number; /* waitpid() returns */
}

/* What is between two steps is one switch from this process to the worker and one back: on the same core, where neither
 * waits for another core to wake up, nor yields to whoever else is at work. Until step_apart() a tick ends each wait
 * that lasts. */
static void step_together(pid_t worker)
{
    const struct sigaction ticking = {.sa_handler = tick};
    const struct itimerval timer = {.it_interval.tv_usec = TICK_MICROSECONDS, .it_value.tv_usec = TICK_MICROSECONDS};
    cpu_set_t one;

    assert_int_equal(sched_getaffinity(0, sizeof(own_cores), &own_cores), 0);
    tied = true;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(worker, sizeof(one), &one), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(sigaction(SIGALRM, &ticking, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static bool step_apart(void)
{
    const struct itimerval never = {.it_value.tv_usec = 0};

    if (setitimer(ITIMER_REAL, &never, NULL) != 0)
        return false;
    if (tied && sched_setaffinity(0, sizeof(own_cores), &own_cores) != 0)
        return false;
    tied = false;
    return true;
}

/* A test that failed half-way does not tie those after it. */
static int tear_down(void **state)
{
    (void)state;
    return step_apart() ? 0 : -1;
}

/* Waits for the traced worker to stop; false: it has gone to sleep, or works on in the kernel, though the request is
 * answered. */
static bool traced_stop(pid_t worker, const struct answer *answer)
{
    int status;

    for (;;) {
        pid_t stopped = waitpid(worker, &status, __WALL);
        if (stopped == worker) {
            assert_true(WIFSTOPPED(status));
            return true;
        }
        assert_true(stopped == -1 && errno == EINTR);
        mr_run(client, MR_NO_WAIT, NULL);
        if (answer->frames > 0)
            return false;
    }
}

/* Follows the worker for `most` instructions, or until the request is answered. Gives how many there were; then the
 * worker is killed. */
static uint64_t step_and_kill(pid_t worker, const struct answer *answer, uint64_t most)
{
    uint64_t steps = 0;
    bool stopped = true;

    step_together(worker);
    while (steps < most && stopped) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, worker, NULL, NULL), 0);
        steps++;
        stopped = traced_stop(worker, answer);
        if (steps % 64 == 0) {
            mr_run(client, MR_NO_WAIT, NULL);
            if (answer->frames > 0)
                break;
        }
    }
    assert_true(step_apart());
    assert_int_equal(kill(worker, SIGKILL), 0);
    int status;
    while (waitpid(worker, &status, __WALL) == worker && !WIFSIGNALED(status))
        ;
    return steps;
}

static bool trace(pid_t worker)
{
    int status;

    if (ptrace(PTRACE_SEIZE, worker, NULL, NULL) != 0)
        return false;
    assert_int_equal(ptrace(PTRACE_INTERRUPT, worker, NULL, NULL), 0);
    assert_int_equal(waitpid(worker, &status, __WALL), worker);
    assert_true(WIFSTOPPED(status));
    return true;
}

/* One request, whose worker dies after so many instructions. Gives how many it took. */
static uint64_t die_after(struct scene *scene, enum kind kind, unsigned n, uint64_t steps)
{
    struct answer answer;

    set_scene(scene, n);
    pid_t worker = node_wait_worker(&node, 1, 0);
    if (!trace(worker)) {
        print_message("tracing is not allowed here (%s)\n", strerror(errno));
        skip();
    }
    start(build(scene, kind), &answer);
    mr_flush(client);
    steps = step_and_kill(worker, &answer, steps);
    finish(&answer);
    node_wait_worker(&node, 1, worker);
    check_done(scene, kind, &answer);
    return steps;
}

static void test_at_any_instruction(void **state)
{
    struct scene scene = {0};
    unsigned moments = strcmp(*state, "memory") == 0 ? MOMENTS_MEMORY : MOMENTS_SYNC, deaths = 0;
    uint64_t all[KINDS], enough = wait_now_ms() + WAIT_MS;

    begin(*state);
    for (unsigned kind = 0; kind < KINDS; kind++, deaths++) {
        all[kind] = die_after(&scene, kind, kind * 100, STEPS_MOST);
        print_message("%s: answered after %llu instructions\n", kind_names[kind], (unsigned long long)all[kind]);
    }
    for (unsigned moment = 1; moment <= moments; moment++)
        for (unsigned kind = 0; kind < KINDS && wait_now_ms() < enough; kind++, deaths++)
            die_after(&scene, kind, kind * 100 + moment, all[kind] * moment / (moments + 1));
    if (deaths < KINDS * (moments + 1))
        print_message("SKIPPED: %u of %u deaths: each instruction takes long on this machine\n",
                      KINDS * (moments + 1) - deaths, KINDS * (moments + 1));
    assert_int_equal(node_partition(&node, 1).restarts, deaths);
    end();
}

/* ---- many at once ---- */

static struct answer answers[WAVE];

/* All of a wave are begun, the worker is killed once so many of them are answered, and all are met. */
static void finish_wave(unsigned answered_before)
{
    unsigned met = 0;

    mr_flush(client);
    while (met < answered_before) {
        unsigned completed = 0;
        assert_int_equal(mr_run(client, (int64_t)WAIT_MS * 1000000, &completed), MR_OK);
        met += completed;
    }
    pid_t dead = node_kill_worker(&node, 1);
    for (unsigned i = 0; i < WAVE; i++)
        finish(&answers[i]);
    node_wait_worker(&node, 1, dead);
}

static void test_many_in_flight(void **state)
{
    static const unsigned moments[] = {0, 1, WAVE / 3, WAVE - 1};
    uint64_t sessions[WAVE], maps[WAVE];

    begin(*state);
    for (unsigned m = 0; m < sizeof(moments) / sizeof(moments[0]); m++) {
        uint64_t before = commands;
        for (unsigned i = 0; i < WAVE; i++) {
            request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
            start(MR_COMMAND, &answers[i]);
        }
        finish_wave(moments[m]);
        for (unsigned i = 0; i < WAVE; i++) {
            sessions[i] = answers[i].output.id;
            assert_int_equal(sessions[i], before + 1 + i); /* in order, none twice, none left out */
        }
        check_quiet(WAVE);
        for (unsigned i = 0; i < WAVE; i++) {
            request_create_service(&request, sessions[i], MAP_TYPE, "", i % 2 == 0 ? "even" : "odd");
            start(MR_COMMAND, &answers[i]);
        }
        finish_wave(moments[m]);
        for (unsigned i = 0; i < WAVE; i++) {
            maps[i] = answers[i].output.id;
            assert_int_equal(maps[i], maps[i % 2]);
        }
        assert_int_not_equal(maps[0], maps[1]);
        for (unsigned i = 0; i < WAVE; i++) {
            request_close_service(&request, sessions[i], maps[i]);
            start(MR_COMMAND, &answers[i]);
        }
        finish_wave(moments[m]);
        check_quiet(WAVE);
        for (unsigned i = 0; i < WAVE; i++) {
            request_close_session(&request, sessions[i]);
            start(MR_COMMAND, &answers[i]);
        }
        finish_wave(moments[m]);
        check_quiet(0);
    }
    end();
}

int main(void)
{
    static char sync[] = "sync", async[] = "async", memory[] = "memory";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_before_it_is_read, sync),
        cmocka_unit_test_prestate(test_before_it_is_read, memory),
        cmocka_unit_test_prestate_setup_teardown(test_at_any_instruction, NULL, tear_down, sync),
        cmocka_unit_test_prestate_setup_teardown(test_at_any_instruction, NULL, tear_down, memory),
        cmocka_unit_test_prestate(test_many_in_flight, sync),
        cmocka_unit_test_prestate(test_many_in_flight, async),
        cmocka_unit_test_prestate(test_many_in_flight, memory),
    };

    /* Each repetition of a string instruction is a step of its own: the node is to do without. */
    setenv("GLIBC_TUNABLES",
           "glibc.cpu.x86_rep_stosb_threshold=1073741824:glibc.cpu.x86_rep_movsb_threshold=1073741824", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
