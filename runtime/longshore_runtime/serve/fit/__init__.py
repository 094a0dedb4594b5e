"""How a model goes onto GPUs. Pure: from a model's geometry and a GPU's figures to the engine's arguments, with reasons."""
