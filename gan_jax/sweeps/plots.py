"""Pictures of a study: its history, which settings matter, and how they go together."""

import pathlib
import warnings

PICTURES = {  # file's name -> function of optuna.visualization.matplotlib
    "history": "plot_optimization_history",
    "importance": "plot_param_importances",
    "parallel": "plot_parallel_coordinate",
}


def draw(study, root: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Writes `history.png`, `importance.png` and `parallel.png`; none of a study without two values to compare.

    Args:
      study: Optuna's.
      root: the sweep's folder.
      name: of the value.
    """
    import matplotlib
    from optuna.exceptions import ExperimentalWarning
    from optuna.trial import TrialState

    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < 2:
        return []
    files = []
    # Optuna draws by pyplot and sets a style for good: both end with the block, and no window is asked for.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as drawn

        pyplot.switch_backend("agg")
        for title, function in PICTURES.items():
            options = {} if title == "importance" else {"target_name": name}
            axes = getattr(drawn, function)(study, **options)
            axes.figure.set_size_inches(9, 5)
            files.append(root / f"{title}.png")
            axes.figure.savefig(files[-1], dpi=100, bbox_inches="tight")
            pyplot.close(axes.figure)
    return files
