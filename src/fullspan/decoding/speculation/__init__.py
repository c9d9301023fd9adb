"""Several tokens a step: a drafter proposes a tree of them, one step of the model verifies it."""
