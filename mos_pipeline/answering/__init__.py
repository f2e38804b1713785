"""From what memory tells to an answer: the prompt within its budget, a model's thoughts left out, or quotes instead."""
