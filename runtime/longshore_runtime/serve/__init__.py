"""The launcher: reads the model's facts, works out the engine's arguments, starts it, watches it, drains it."""
