"""From a prompt to text: the generation loop, sampling, and the language model a user holds."""
