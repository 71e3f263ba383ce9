/* SPDX-License-Identifier: Apache-2.0 */
/* What can be told of a request from its bytes (and the table of service types) alone. Looks at no state. */
#include "engine/fsm/duration.h"
#include "engine/fsm/filter.h"
#include "engine/fsm/state.h"

#include <string.h>

static enum status refuse(enum status status, const char **message, const char *text)
{
    *message = text;
    return status;
}

static enum status check_session_command(const struct fsm *fsm, const struct command_input *command,
                                         const char **message)
{
    switch (command->session_kind) {
    case SESSION_COMMAND_CREATE_SERVICE:
        if (command->spec.name.size == 0)
            return refuse(STATUS_INVALID, message, "CreateService: the service's name is empty");
        if (service_table_type(&fsm->services, command->spec.service) == NULL)
            return refuse(STATUS_NOT_SUPPORTED, message, "CreateService: no service type of that name");
        return STATUS_OK;
    case SESSION_COMMAND_CLOSE_SERVICE:
        return STATUS_OK;
    case SESSION_COMMAND_SERVICE_COMMAND:
        if (command->sequence_num == 0)
            return refuse(STATUS_INVALID, message, "ServiceCommandInput.sequence_num is 0; numbers start at 1");
        return STATUS_OK;
    case SESSION_COMMAND_NONE:
        return refuse(STATUS_INVALID, message, "SessionCommandInput: none of its `input` members is set");
    case SESSION_COMMAND_AMBIGUOUS:
        break;
    }
    return refuse(STATUS_INVALID, message, "SessionCommandInput: more than one of its `input` members is set");
}

enum status check_command_closely(const struct fsm *fsm, const struct command_input *command, const char **message)
{
    uint64_t timeout;
    switch (command->kind) {
    case COMMAND_SESSION_COMMAND:
        return check_session_command(fsm, command, message);
    case COMMAND_OPEN_SESSION:
        if (!duration_nanoseconds(command->timeout, &timeout) || timeout == 0 || timeout > MR_SESSION_TIMEOUT_MAX)
            return refuse(STATUS_INVALID, message, "OpenSessionInput.timeout must be over 0 and at most 24 hours");
        return STATUS_OK;
    case COMMAND_KEEP_ALIVE:
        if (!filter_valid(command->input_filter))
            return refuse(STATUS_INVALID, message,
                          "KeepAliveInput.input_filter must be empty, or 1, 1 to 16 probes, at least 8 bytes of bits");
        return STATUS_OK;
    case COMMAND_CLOSE_SESSION:
        return STATUS_OK;
    case COMMAND_NONE:
        return refuse(STATUS_INVALID, message, "CommandInput: none of its `input` members is set");
    case COMMAND_AMBIGUOUS:
        break;
    }
    return refuse(STATUS_INVALID, message, "CommandInput: more than one of its `input` members is set");
}

enum status fsm_check_command(const struct fsm *fsm, const struct partition_command_input *input, uint32_t partition,
                              const char **message)
{
    if (input->partition_id != partition)
        return refuse(STATUS_INVALID, message, "partition_id names another partition than the channel's");
    if (!input->has_command)
        return refuse(STATUS_INVALID, message, "PartitionCommandInput: `command` is missing");
    return check_command(fsm, &input->command, message);
}

bool fsm_check_frees(const struct fsm *fsm, const struct command_input *command)
{
    if (command->kind != COMMAND_SESSION_COMMAND)
        return command->kind == COMMAND_KEEP_ALIVE || command->kind == COMMAND_CLOSE_SESSION;
    if (command->session_kind != SESSION_COMMAND_SERVICE_COMMAND)
        return command->session_kind == SESSION_COMMAND_CLOSE_SERVICE;
    /* By its name alone: which service it is for is state. */
    const struct slice name = command->operation.name;
    for (const struct service_type *const *type = fsm->config.types; *type != NULL; type++)
        for (size_t n = 0; n < (*type)->operation_count; n++) {
            const struct service_operation *operation = &(*type)->operations[n];
            if (operation->frees && operation_is(operation, name))
                return true;
        }
    return false;
}

enum status fsm_check_query(const struct partition_query_input *input, uint32_t partition, const char **message)
{
    if (input->partition_id != partition)
        return refuse(STATUS_INVALID, message, "partition_id names another partition than the channel's");
    if (!input->has_query)
        return refuse(STATUS_INVALID, message, "PartitionQueryInput: `query` is missing");
    if (input->query_members != 1)
        return refuse(STATUS_INVALID, message, "QueryInput: not exactly one of its `input` members is set");
    if (input->session_query_members != 1)
        return refuse(STATUS_INVALID, message, "SessionQueryInput: not exactly one of its `input` members is set");
    return STATUS_OK;
}
