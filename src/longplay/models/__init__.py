"""The four models: `tokenizer`, `lm`, `flow`, `codec`. They never import each other."""
