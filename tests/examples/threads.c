/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: each has a handle of its own, and they meet in the node. Every increment of every thread counts. */
#include <pthread.h>
#include <stdio.h>

#include <millrace/counter.h>

#define THREADS 4
#define INCREMENTS 250

static void *work(void *unused)
{
    mr_client *client;
    mr_counter *counter;
    enum mr_status status = mr_connect(NULL, NULL, &client);

    (void)unused;
    if (status == MR_OK)
        status = mr_counter_open(client, "threads", &counter);
    for (int i = 0; i < INCREMENTS && status == MR_OK; i++)
        status = mr_counter_increment(counter, 1, NULL);
    if (status != MR_OK)
        fprintf(stderr, "%s: %s\n", mr_status_name(status), mr_message(client));
    mr_close(client);
    return status == MR_OK ? unused : NULL;
}

static enum mr_status read_counter(int64_t *value)
{
    mr_client *client;
    mr_counter *counter;
    enum mr_status status = mr_connect(NULL, NULL, &client);

    if (status == MR_OK)
        status = mr_counter_open(client, "threads", &counter);
    if (status == MR_OK)
        status = mr_counter_get(counter, value);
    mr_close(client);
    return status;
}

int main(void)
{
    pthread_t threads[THREADS];
    int64_t before = 0;
    int64_t after = 0;
    int failed = read_counter(&before) != MR_OK;

    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &threads) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++) {
        void *result = NULL;
        failed |= pthread_join(threads[i], &result) != 0 || result == NULL;
    }
    failed |= read_counter(&after) != MR_OK || after - before != THREADS * INCREMENTS;
    printf("%d threads, %lld increments\n", THREADS, (long long)(after - before));
    return failed;
}
