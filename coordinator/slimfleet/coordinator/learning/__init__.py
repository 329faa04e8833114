"""Learning from answers: the model, the cost model, the registry and the row of the round."""

__all__: list[str] = []
