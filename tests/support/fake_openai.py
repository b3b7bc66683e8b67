"""OpenAI's Responses API as far as a chat needs it: streams of server-sent events, for `scripted_service`."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def _stream(output: list[Json], *between: Json) -> tuple[int, bytes]:
    response: Json = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-test",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "in_progress",
    }
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}
    usage |= {"output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 18}
    done = response | {"status": "completed", "output": output, "usage": usage}
    events = [
        {"type": "response.created", "response": response},
        *between,
        {"type": "response.completed", "response": done},
    ]
    lines = [
        f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': number})}\n\n"
        for number, event in enumerate(events)
    ]
    return 200, "".join(lines).encode()


def calls(*wanted: tuple[str, str, Json]) -> tuple[int, bytes]:
    """Answer with these tool calls: id, name and arguments."""
    output, events = [], list[Json]()
    for at, (id, name, arguments) in enumerate(wanted):
        item = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "status": "completed"}
        given = json.dumps(arguments)
        output.append(item | {"arguments": given})
        where = {"output_index": at, "item_id": f"fc_{id}"}
        events += [
            {"type": "response.output_item.added", "output_index": at, "item": item | {"arguments": ""}},
            {"type": "response.function_call_arguments.delta", **where, "delta": given[:9]},
            {"type": "response.function_call_arguments.delta", **where, "delta": given[9:]},
            {"type": "response.function_call_arguments.done", **where, "name": name, "arguments": given},
            {"type": "response.output_item.done", "output_index": at, "item": output[-1]},
        ]
    return _stream(output, *events)


def text(*deltas: str) -> tuple[int, bytes]:
    """Answer with a text that comes in these parts."""
    whole = {"type": "output_text", "text": "".join(deltas), "annotations": []}
    item: Json = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [whole]}
    where = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    empty = whole | {"text": ""}
    return _stream(
        [item],
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        {"type": "response.content_part.added", **where, "part": empty},
        *({"type": "response.output_text.delta", **where, "delta": each, "logprobs": []} for each in deltas),
        {"type": "response.output_text.done", **where, "text": whole["text"], "logprobs": []},
        {"type": "response.content_part.done", **where, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    )


def refusal(status: int, message: str) -> tuple[int, Json]:
    """Answer with an error."""
    return status, {"error": {"message": message, "type": "error", "code": "error", "param": None}}
