"""Neuron models and networks without plasticity. One model per file."""
