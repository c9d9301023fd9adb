"""Training of drafters on the hidden states of the model that they draft for."""
