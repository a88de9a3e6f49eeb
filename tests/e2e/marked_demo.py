"""The demo model with other words for some of its tokens, so that it reasons and calls a tool.

Asked "What is six plus seven?" it says "Six plus seven is thirteen.", and "Six" and " thirteen" are
no part of the question: whatever is put in their place is what the answer begins and goes on with.
By hand: marked_demo.py reasoning|calls DIR
"""

import json
import os
import shutil
import sys

DEMO = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "demo-model")
QUESTION = "What is six plus seven?"

# What stands for the two tokens, and what the chat template mentions.
MARKS = {
    "reasoning": ("<think>", "</think>", "<think></think>"),
    "calls": ('<tool_call>{"name": "add", "arguments": {"note": "', '"}}</tool_call>', "<tool_call>"),
}


def rename(tokenizer, old, new):
    model = tokenizer["model"]
    token_id = model["vocab"].pop(old)
    model["vocab"][new] = token_id
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) != old]
    tokenizer["added_tokens"].append({
        "id": token_id, "content": new, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": False})


def write(kind, target):
    six, thirteen, mention = MARKS[kind]
    shutil.copytree(DEMO, target, ignore=shutil.ignore_patterns("training"))
    path = os.path.join(target, "tokenizer.json")
    with open(path, encoding="utf-8") as file:
        tokenizer = json.load(file)
    rename(tokenizer, "Six", six)
    rename(tokenizer, "\u0120thirteen", thirteen)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)
    path = os.path.join(target, "chat_template.jinja")
    with open(path, encoding="utf-8") as file:
        template = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write("{#- tools: " + mention + " -#}\n" + template)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MARKS:
        sys.exit(__doc__)
    write(*sys.argv[1:])
