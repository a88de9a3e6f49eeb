"""OpenAI's own Python client against a running daemon: what it sends and reads, unchanged.

Run by hand, see README.md: it needs the package `openai`, which is not among our dependencies.
"""

import json
import sys

import openai


def check(holds, what):
    print(("ok    " if holds else "FAILED  ") + what)
    check.failures += not holds


check.failures = 0


def chats(client, model):
    messages = [{"role": "user", "content": "What is six plus seven?"}]
    whole = client.chat.completions.create(model=model, messages=messages, temperature=0)
    text = whole.choices[0].message.content
    check(bool(text) and whole.choices[0].finish_reason == "stop", f"chat: {text!r}")
    check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens,
          f"usage: {whole.usage.prompt_tokens} + {whole.usage.completion_tokens}")

    stream = client.chat.completions.create(
        model=model, messages=messages, temperature=0, stream=True,
        stream_options={"include_usage": True})
    pieces, usage = [], None
    for chunk in stream:
        usage = chunk.usage or usage
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    check("".join(pieces) == text, f"streamed chat in {len(pieces)} pieces: the same text")
    check(usage == whole.usage, "streamed usage: the same")

    told = client.chat.completions.create(
        model=model, messages=messages, temperature=0, logprobs=True, top_logprobs=2)
    content = told.choices[0].logprobs.content
    check("".join(token.token for token in content) == text, "logprobs of each token")
    check(all(len(token.top_logprobs) == 2 for token in content), "top_logprobs of each token")

    parts = [{"role": "user", "content": [{"type": "text", "text": "What is six plus seven?"}]}]
    again = client.chat.completions.create(model=model, messages=parts, temperature=0)
    check(again.choices[0].message.content == text, "content in parts: the same text")


TOOLS = [{"type": "function", "function": {
    "name": "add", "description": "Adds two numbers.",
    "parameters": {"type": "object", "additionalProperties": False, "required": ["a", "b"],
                   "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9},
                                  "b": {"enum": [7]}}}}}]
QUESTION = [{"role": "user", "content": "What is six plus seven?"}]


def streamed(client, **request):
    """The message and finish reason that the pieces of a stream make."""
    texts, calls, reason = {"content": "", "reasoning_content": ""}, {}, None
    for chunk in client.chat.completions.create(messages=QUESTION, temperature=0, stream=True,
                                                **request):
        delta, reason = chunk.choices[0].delta, chunk.choices[0].finish_reason or reason
        for name in texts:
            texts[name] += getattr(delta, name, None) or ""
        for piece in delta.tool_calls or []:
            call = calls.setdefault(piece.index, {"id": piece.id, "name": "", "arguments": ""})
            call["name"] += piece.function.name or ""
            call["arguments"] += piece.function.arguments or ""
    return texts, list(calls.values()), reason


def calls_tools(client, model, **choice):
    request = {"model": model, "tools": TOOLS, "max_tokens": 200, **choice}
    whole = client.chat.completions.create(messages=QUESTION, temperature=0, **request).choices[0]
    calls = whole.message.tool_calls or []
    check(len(calls) == 1 and calls[0].type == "function" and calls[0].function.name == "add",
          f"{model}, {choice or 'auto'}: a call: {calls}")
    check(whole.finish_reason == "tool_calls", f"it ends for it: {whole.finish_reason}")
    check(isinstance(json.loads(calls[0].function.arguments), dict),
          f"arguments are JSON: {calls[0].function.arguments}")
    _, pieces, reason = streamed(client, **request)
    check([(one["name"], one["arguments"]) for one in pieces] ==
          [(one.function.name, one.function.arguments) for one in calls], "streamed: the same call")
    check(reason == "tool_calls", "streamed: the same end")
    check(pieces[0]["id"] != calls[0].id, f"each has an id of its own: {pieces[0]['id']}")


def reasons(client, model):
    whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0).choices[0]
    check(whole.message.reasoning_content == "plus seven is" and whole.message.content == ".",
          f"reasoning: {whole.message.reasoning_content!r}, then {whole.message.content!r}")
    texts, _, reason = streamed(client, model=model)
    check(texts == {"content": ".", "reasoning_content": "plus seven is"} and reason == "stop",
          "streamed: the same")


def completes(client, model):
    prompt = "Once upon a time"
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=20, temperature=0, n=2)
    texts = [choice.text for choice in whole.choices]
    check(len(texts) == 2 and texts[0] == texts[1], f"completion: {texts[0]!r}")
    stream = client.completions.create(
        model=model, prompt=prompt, max_tokens=20, temperature=0, stream=True)
    check("".join(chunk.choices[0].text for chunk in stream) == texts[0], "streamed: the same text")
    stopped = client.completions.create(
        model=model, prompt=prompt, max_tokens=20, temperature=0, stop=texts[0][5:9])
    check(stopped.choices[0].text == texts[0][:5], "stop ends it before the string")
    echoed = client.completions.create(
        model=model, prompt=prompt, max_tokens=1, temperature=0, echo=True, logprobs=1)
    check(echoed.choices[0].text.startswith(prompt), "echo begins with the prompt")
    check(echoed.choices[0].logprobs.token_logprobs[0] is None, "its first token has no logprob")


def refuses(client, model):
    try:
        client.completions.create(model="no-such-model", prompt="x")
        check(False, "an unknown model")
    except openai.NotFoundError as error:
        check(error.code == "model_not_found", f"an unknown model: {error.code}")
    try:
        client.completions.create(model=model, prompt="x", suffix="y")
        check(False, "a field that is not honoured")
    except openai.BadRequestError as error:
        check(error.param == "suffix", f"a field that is not honoured: {error.param}")


def main():
    if len(sys.argv) not in (3, 5):
        sys.exit("usage: openai_client.py http://127.0.0.1:8080/v1 MODEL [REASONING CALLING]")
    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    model = sys.argv[2]
    listed = [one.id for one in client.models.list()]
    check(model in listed, f"models: {json.dumps(listed)}")
    check(client.models.retrieve(model).id == model, "one model")
    chats(client, model)
    completes(client, model)
    refuses(client, model)
    if len(sys.argv) == 5:
        reasons(client, sys.argv[3])
        calls_tools(client, sys.argv[4])
        calls_tools(client, sys.argv[4], tool_choice="required")
        calls_tools(client, sys.argv[4],
                    tool_choice={"type": "function", "function": {"name": "add"}})
    sys.exit(1 if check.failures else 0)


if __name__ == "__main__":
    main()
