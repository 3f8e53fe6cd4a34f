"""What the scripts of peers share: they answer commands, one a line, so that both sides are measured in turn."""

import json
import os
import sys

import torch


def serve(commands):
    """Answers each line [NAME, ARGUMENT...] of stdin with a line of JSON, what commands[NAME](ARGUMENT...) returns.

    The first line says which PyTorch this is. An exception ends the script; what libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"torch": torch.__version__})
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer(commands[name](*arguments))
