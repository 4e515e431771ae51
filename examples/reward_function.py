"""A reward function as a check: sources answer, a function of your own says how good each answer is, the good ones are kept.

python examples/reward_function.py [FOLDER]

The run takes the function from this very file. TRL's `GRPOTrainer(reward_funcs=sorted_words, ...)` takes it as it is, too.
"""

import json
import sys

import fusion


def sorted_words(prompts, completions, **columns):
    """Reward each completion with the share of the prompt's words that stand where the alphabet puts them, 0 to 1.

    A prompt is "sort melon fig cup ="; it comes once for each of its completions. `columns` are those that the check names.
    """
    rewards = []
    for prompt, completion in zip(prompts, completions, strict=True):
        expected, found = sorted(prompt.split()[1:-1]), completion.split()
        right = sum(word == other for word, other in zip(expected, found, strict=False))
        rewards.append(right / max(len(expected), len(found)))
    return rewards


if __name__ == "__main__":  # the run loads this file, and must not start another run
    check = {"kind": "function", "path": __file__, "name": "sorted_words", "at_least": 1.0}
    prompts = {"path": "builtin:sort", "domain": "sort", "split": "fusion", "limit": 24, "response": None}
    run = fusion.run(
        "quickstart",
        {
            "runs": sys.argv[1] if len(sys.argv) > 1 else "runs",
            "name": "rewarded",
            "data.responses": {"kind": "best_source", "max_new_tokens": 32},
            "data.train": [prompts | {"check": check}],
            **{f"data.heldout.{n}.limit": 16 for n in range(5)},
        },
        until="respond",
    )

    for count in run.record["responses"]:
        print(f"{count['source']:11} {count['passed']:2} of {count['answers']} answers have a reward of 1")

    # What a training would learn from: until="report" goes on with it.
    chosen = (run.folder / "responses/chosen/examples.jsonl").read_text().splitlines()
    first = json.loads(chosen[0])
    print(f"{len(chosen)} examples, the first by {first['source']}: {first['response'].strip()}")
