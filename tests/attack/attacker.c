/* SPDX-License-Identifier: Apache-2.0 */
/* An attacker's life: rounds off the board, each with its attack, and what the node must answer to it. See
 * attacker.h. */
#include "tests/attack/attacker.h"

#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "proto/reader.h"
#include "tests/attack/lives.h"
#include "tests/support/wait.h"

static const struct attack *const tables[] = {ring_attacks, body_attacks, descriptor_attacks, talk_attacks};

const struct attack *attack_numbered(unsigned number)
{
    for (unsigned table = 0; table < sizeof(tables) / sizeof(tables[0]); table++)
        for (const struct attack *attack = tables[table]; attack->name != NULL; attack++)
            if (number-- == 0)
                return attack;
    return NULL;
}

static unsigned weight(const struct attacker *attacker, unsigned number)
{
    const struct attack *attack = attack_numbered(number);
    const char *only = attacker->board->only;

    return only == NULL || strstr(attack->name, only) != NULL ? attack->weight : 0;
}

static unsigned pick(struct attacker *attacker)
{
    uint64_t all = 0;

    for (unsigned i = 0; attack_numbered(i) != NULL; i++)
        all += weight(attacker, i);
    if (all == 0)
        attacker_fail(attacker, "there is no attack of that name");
    uint64_t chance = draw(attacker, all);
    unsigned number = 0;
    while (chance >= weight(attacker, number))
        chance -= weight(attacker, number++);
    return number;
}

uint64_t draw(struct attacker *attacker, uint64_t below)
{
    return draw_from(&attacker->random, below);
}

void draw_bytes(struct attacker *attacker, void *to, size_t size)
{
    uint8_t *at = to;

    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = draw(attacker, UINT64_MAX);
        memcpy(at + i, &word, size - i < 8 ? size - i : 8);
    }
}

void attacker_fail(struct attacker *attacker, const char *format, ...)
{
    struct attacker_account *account = attacker->account;
    va_list arguments;
    int used = snprintf(account->failure, sizeof(account->failure), "round %" PRIu64 ", %s: ", account->round,
                        attack_numbered(account->attack)->name);

    va_start(arguments, format);
    vsnprintf(account->failure + used, sizeof(account->failure) - (size_t)used, format, arguments);
    va_end(arguments);
    atomic_store(&attacker->board->stop, true);
    _exit(1);
}

/* ---- What the node must do ---- */

static const struct {
    enum outcome outcome;
    const char *text;
} reasons[] = {{CLOSED_TAIL, "the request ring's tail is where it cannot be"},
               {CLOSED_FRAME, "a request frame is longer than what was published of it"},
               {CLOSED_HEAD, "the response ring's head is where it cannot be"},
               {CLOSED_HEAD, "the response ring's head ran backwards"}};

static void check_reason(struct attacker *attacker, unsigned outcome)
{
    for (unsigned i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if ((outcome & reasons[i].outcome) != 0 && strcmp(attacker->closed, reasons[i].text) == 0)
            return;
    attacker_fail(attacker, "the channel was closed, saying: %s", attacker->closed);
}

static void wait_closed(struct attacker *attacker)
{
    uint64_t end = wait_now_ms() + attacker->board->wait_ms;

    attacker_ring_bell(attacker);
    while (attacker->closed[0] == '\0') {
        uint64_t now = wait_now_ms();
        if (now >= end || attacker_hear(attacker, &attacker->client, (unsigned)(end - now)).over)
            attacker_fail(attacker, "the channel is not closed");
    }
}

static void settle(struct attacker *attacker, unsigned outcome)
{
    if ((outcome & LEAVE_ALL) != 0)
        attacker_hang_up(attacker);
    else if ((outcome & LEAVE_CHANNEL) != 0)
        attacker_drop(attacker);
    if ((outcome & (LEAVE_ALL | LEAVE_CHANNEL | ELSEWHERE)) != 0)
        return;
    if ((outcome & MUST_CLOSE) != 0)
        wait_closed(attacker);
    else if (attacker_settled(attacker))
        return;
    check_reason(attacker, outcome);
    attacker->account->closed[attacker->account->attack]++;
    attacker_drop(attacker);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void one_round(struct attacker *attacker, uint64_t round)
{
    struct attacker_account *account = attacker->account;

    attacker->random = attacker->board->seed * UINT64_C(0xD1342543DE82EF95) + round;
    account->attack = pick(attacker);
    account->round = round;
    account->begun[account->attack]++;
    uint64_t begun = now_us();
    attacker_open(attacker);
    settle(attacker, attack_numbered(account->attack)->run(attacker));
    account->took[account->attack] += now_us() - begun;
}

/* ---- Sessions ---- */

/* Sends a command and gives its answer; false: refused, or the channel is closed. */
static bool ask(struct attacker *attacker, struct command_output *output)
{
    const struct request *request = &attacker->request;
    struct channel *channel = &attacker->channel;
    uint64_t position = attacker->tail;
    uint64_t from = attacker->answered;

    attacker_publish(attacker,
                     position + attacker_put_frame(attacker, position, FRAME_COMMAND, request->bytes, request->size));
    if (!attacker_settled(attacker))
        return false;
    while (from < attacker->answered) {
        const uint8_t *at = channel->response_data + (from & (RING - 1));
        struct response_head head;
        struct slice part;
        memcpy(&head, at, sizeof(head));
        if (head.request == position)
            return head.status == STATUS_OK &&
                   read_partition_command_output(at + sizeof(head), head.size, output, &part) == READ_OK;
        from += response_whole_bytes(&head);
    }
    attacker_fail(attacker, "a command has no answer");
}

void attacker_need_session(struct attacker *attacker)
{
    struct command_output output;

    if (attacker->session != 0 && attacker->session_rounds-- > 0)
        return;
    attacker->session = attacker->account->session = 0;
    attacker->session_rounds = 200;
    if (!attacker_settled(attacker))
        attacker_fail(attacker, "the channel was closed before the attack, saying: %s", attacker->closed);
    request_open_session(&attacker->request, (struct duration){.seconds = 5, .present = true});
    if (!ask(attacker, &output))
        return; /* no room for one now: there is enough that can be done without */
    attacker->session = attacker->account->session = output.id;
    attacker->sequence = 0;
    request_create_service(&attacker->request, attacker->session, COUNTER_TYPE, "", "attacked");
    attacker->counter = ask(attacker, &output) ? output.id : 1;
    request_create_service(&attacker->request, attacker->session, MAP_TYPE, "", "attacked map");
    attacker->map = ask(attacker, &output) ? output.id : 2;
}

/* ---- A life ---- */

/* A process of another user, which dies with its parent all the same. */
static bool become_stranger(void)
{
    return setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0 &&
           prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
}

static void begin(struct attacker *attacker, struct board *board, struct attacker_account *account)
{
    *attacker = (struct attacker){.board = board, .account = account, .client = {.socket = -1, .wake = -1}};
    for (unsigned i = 0; i < HELD_MAX; i++)
        attacker->held[i] = (struct held){.client = {.socket = -1, .wake = -1}, .fds = {-1, -1}};
    if (!become_stranger())
        attacker_fail(attacker, "cannot become user %u", STRANGER);
    signal(SIGPIPE, SIG_IGN);
    meddler_init(&attacker->meddler);
}

static void end(struct attacker *attacker)
{
    attacker_hang_up(attacker);
    meddler_end(&attacker->meddler);
    request_free(&attacker->request);
}

int attacker_live(struct board *board, unsigned number)
{
    static struct attacker attacker;

    begin(&attacker, board, &board->attackers[number]);
    while (!atomic_load(&board->stop)) {
        uint64_t first = atomic_fetch_add(&board->next, ROUNDS_AT_ONCE);
        if (first >= board->end)
            break;
        for (uint64_t round = first; round < first + ROUNDS_AT_ONCE && round < board->end; round++)
            one_round(&attacker, round);
    }
    end(&attacker);
    return 0; /* what it holds open ends with it */
}

/* The descriptor is of a list of sessions. */
static void close_sessions(struct attacker *attacker, int fd, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    struct command_output output;

    if (bytes == NULL || pread(fd, bytes, size, 0) != (ssize_t)size)
        attacker_fail(attacker, "the list of sessions cannot be read");
    Millrace__V1__SessionList *list = millrace__v1__session_list__unpack(NULL, size, bytes);
    free(bytes);
    if (list == NULL)
        attacker_fail(attacker, "the list of sessions does not decode");
    for (size_t i = 0; i < list->n_sessions; i++) {
        if (list->sessions[i]->uid != STRANGER)
            attacker_fail(attacker, "a session of user %u is shown", list->sessions[i]->uid);
        request_close_session(&attacker->request, list->sessions[i]->session_id);
        (void)ask(attacker, &output); /* it may end by itself meanwhile */
    }
    millrace__v1__session_list__free_unpacked(list, NULL);
}

int attackers_clean_up(struct board *board)
{
    static struct attacker attacker;

    begin(&attacker, board, &board->attackers[0]);
    attacker_open(&attacker);
    stub_ask_sessions(&attacker.client, 1);
    struct heard heard = attacker_hear(&attacker, &attacker.client, board->wait_ms);
    if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS || heard.fds[0] < 0)
        attacker_fail(&attacker, "asked for sessions, the node says %u: %s", heard.what, heard.text);
    close_sessions(&attacker, heard.fds[0], heard.ring_bytes);
    heard_close(&heard);
    end(&attacker);
    return 0;
}
