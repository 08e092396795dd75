"""Search strategies inside other people's tuning libraries; each module needs its library.

- ``hotnas_torch.integrations.ray.tune``: :class:`StrategySearcher` for ``ray.tune.Tuner``.
- ``hotnas_torch.integrations.optuna``: :class:`StrategySampler` for ``optuna.Study``.
"""
