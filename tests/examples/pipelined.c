/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once: 100,000 increments are started as fast as there is room, and their answers met by a callback.
 * They share system calls and writes to the disk, so this takes little longer than a few hundred calls that wait. */
#include <stdio.h>

#include <millrace/counter.h>

#define INCREMENTS 100000

struct progress {
    long answered;
    long failed;
    int64_t value; /* the last answer's */
};

static void answered(mr_client *client, const struct mr_result *result)
{
    struct progress *progress = result->arg;

    (void)client;
    progress->answered++;
    if (result->status == MR_OK)
        progress->value = result->as.number;
    else if (progress->failed++ == 0)
        fprintf(stderr, "%s: %.*s\n", mr_status_name(result->status), (int)result->message.size,
                (const char *)result->message.data);
}

static enum mr_status count(mr_client *client, mr_counter *counter, struct progress *progress)
{
    struct mr_then then = {answered, progress};
    enum mr_status status;
    long started = 0;

    while (progress->answered < INCREMENTS) {
        status = MR_OK;
        while (started < INCREMENTS && (status = mr_counter_increment_start(counter, 1, then, NULL)) == MR_OK)
            started++;
        if (status != MR_OK && status != MR_AGAIN)
            return status;
        /* The ring is full, or all is started: publish, meet answers, and wait only if there are none. */
        if ((status = mr_run(client, MR_FOR_EVER, NULL)) != MR_OK)
            return status;
    }
    return MR_OK;
}

int main(void)
{
    struct progress progress = {0, 0, 0};
    mr_client *client;
    mr_counter *counter;
    enum mr_status status = mr_connect(NULL, NULL, &client);

    if (status == MR_OK)
        status = mr_counter_open(client, "pipelined", &counter);
    if (status == MR_OK)
        status = count(client, counter, &progress);
    if (status != MR_OK)
        fprintf(stderr, "%s: %s\n", mr_status_name(status), mr_message(client));
    else
        printf("%ld increments answered, %ld failed, the counter is at %lld\n", progress.answered, progress.failed,
               (long long)progress.value);
    mr_close(client);
    return status != MR_OK || progress.failed != 0;
}
