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
    if len(sys.argv) != 3:
        sys.exit("usage: openai_client.py http://127.0.0.1:8080/v1 MODEL")
    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    model = sys.argv[2]
    listed = [one.id for one in client.models.list()]
    check(model in listed, f"models: {json.dumps(listed)}")
    check(client.models.retrieve(model).id == model, "one model")
    chats(client, model)
    completes(client, model)
    refuses(client, model)
    sys.exit(1 if check.failures else 0)


if __name__ == "__main__":
    main()
