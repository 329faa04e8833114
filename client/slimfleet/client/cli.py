"""Command line `slimfleet-device`: what this machine can do for a fleet, and what a task needs of it.

Whatever loads torch is imported inside the commands, so that help appears at once.
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from slimfleet.client.commands.arguments import (
    AsJson,
    Batch,
    Battery,
    DeviceClass,
    IdleWatt,
    Like,
    MeterName,
    Name,
    TaskName,
    TrainWatt,
    task_of,
)
from slimfleet.client.commands.calibrate import calibrate
from slimfleet.client.commands.meters import meters
from slimfleet.client.commands.run import run
from slimfleet.client.condition import read_condition
from slimfleet.client.figures import cores, profile_figures, profile_like, profile_of, ram_bytes
from slimfleet.client.meters import build_meter
from slimfleet.client.policy import read_policy, reason_in_words, refusal
from slimfleet.compression import BadInput
from slimfleet.compression.edge.command_line import (
    ImportFrom,
    Quiet,
    TaskArguments,
    Verbose,
    command_app,
    interruptible,
    json_text,
    run_app,
    stdout_kept_clean,
)
from slimfleet.compression.edge.every_command import ResidentCommand
from slimfleet.compression.edge.logs import say

app = command_app(no_args_is_help=True)
app.command(cls=ResidentCommand)(run)


@app.callback()
def _commands() -> None:
    """What this machine can do for a fleet, and what a task needs of it."""


@app.command()
def inspect(
    task: TaskName,
    width: Annotated[
        list[float] | None,
        typer.Option(help="A width to measure; repeatable.", show_default="1.0 0.75 0.5 0.25"),
    ] = None,
    batch_size: Batch = 16,
    runtime: Annotated[str, typer.Option(help="Whose memory model: torch or lite.")] = "torch",
    as_json: AsJson = False,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
    verbose: Verbose = False,
) -> None:
    """Show which channels of a task's model can be removed for a narrow device, and what each width costs.

    What no narrow device can lose is named, with the reason.
    Costs are measured on the shrunk model itself, not scaled.
    Only peak memory is predicted.

    For example:
      slimfleet-device inspect digits
      slimfleet-device inspect keyboard:Keyboard --import-from own_task
    """
    with interruptible():
        from slimfleet.compression.cost import RUNTIMES  # loads numpy, which `run` does without
    if runtime not in RUNTIMES:
        raise BadInput(f"no runtime is called {runtime!r}; there are {', '.join(RUNTIMES)}")
    with interruptible():
        from rich.console import Console

        from slimfleet.client.anatomy import anatomy, at_width
        from slimfleet.client.printing import groups_table, reach_text, whole_text, widths_table
        from slimfleet.compression.pruning.blueprint import blueprint

    with stdout_kept_clean():
        loaded = task_of(task, option, import_from)
        name, architecture = loaded.name, blueprint(loaded, seed=0)
        rows = [
            at_width(loaded, architecture, each, RUNTIMES[runtime], batch_size)
            for each in width or (1.0, 0.75, 0.5, 0.25)
        ]
    if as_json:
        print(json_text(anatomy(name, architecture, rows, runtime, batch_size)))
        return
    console = Console()
    if architecture.groups:
        console.print(groups_table(name, architecture))
        if verbose:
            console.print(reach_text(architecture), markup=False, highlight=False, soft_wrap=True)
    console.print(whole_text(architecture, verbose), markup=False, highlight=False, soft_wrap=verbose)
    console.print(widths_table(rows, runtime, batch_size))


@app.command()
def profile(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to train, as for inspect.")] = "digits",
    seconds: Annotated[float, typer.Option(metavar="S", min=0.1, max=600, help="How long to train.")] = 5.0,
    batch_size: Batch = 16,
    meter: MeterName = "power-supply",
    like: Like = None,
    name: Name = None,
    device_class: DeviceClass = None,
    idle_watt: IdleWatt = None,
    train_watt: TrainWatt = None,
    uplink_bytes_per_s: Annotated[
        float | None, typer.Option(metavar="B/S", min=0, help="Speed of sending.")
    ] = None,
    downlink_bytes_per_s: Annotated[
        float | None, typer.Option(metavar="B/S", min=0, help="Speed of receiving.")
    ] = None,
    radio_j_per_byte_up: Annotated[
        float | None, typer.Option(metavar="J/B", min=0, help="Energy of sending.")
    ] = None,
    radio_j_per_byte_down: Annotated[
        float | None, typer.Option(metavar="J/B", min=0, help="Energy of receiving.")
    ] = None,
    radio_j_per_burst: Annotated[
        float | None, typer.Option(metavar="J", min=0, help="Energy of waking the radio.")
    ] = None,
    battery_j: Battery = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the profile as TOML.")] = False,
    quiet: Quiet = False,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
) -> None:
    """Measure this machine by training a task for some seconds, and print its device profile.

    Speed, memory and, where a meter reads, power are measured; power is never guessed.
    The link is assumed to be slow wifi unless it is given.
    What --json prints is what slimfleet-coordinator plan --profile reads.

    For example:
      slimfleet-device profile digits --train-w 3 --idle-w 2 --json > this.json
      slimfleet-device profile digits --like pi_zero_2w
    """
    sensor = build_meter(meter)
    with interruptible():
        from rich.console import Console

        from slimfleet.client.benchmark import measure_training, measured_power
        from slimfleet.client.printing import toml_of
        from slimfleet.client.tables import benchmark_text, figures_table

    alike = None if like is None else profile_like(like)
    given = {
        "device_class": device_class,
        "idle_w": idle_watt,
        "train_w": train_watt,
        "uplink_bytes_per_s": uplink_bytes_per_s,
        "downlink_bytes_per_s": downlink_bytes_per_s,
        "radio_j_per_byte_up": radio_j_per_byte_up,
        "radio_j_per_byte_down": radio_j_per_byte_down,
        "radio_j_per_burst": radio_j_per_burst,
        "battery_j": battery_j,
        "name": name,
    }
    with stdout_kept_clean():
        loaded = task_of(task, option, import_from)
        model = loaded.build_model()
        loaded.rehearse_model(model)
        loaded.rehearse_training(model, partitions=1)
        benchmark = measure_training(loaded, batch_size, seconds, sensor)
    measured: dict[str, object] = {
        "name": platform.node() or "device",
        "ram_bytes": ram_bytes(),
        "train_flops_per_s": benchmark.flops_per_s,
        **measured_power(benchmark.reading, sensor, seconds),
    }
    figures = profile_figures(given, measured, alike)
    if as_json or as_toml:
        found = profile_of(figures)
        print(json_text(asdict(found)) if as_json else toml_of(found))
        assumed = [name for name, figure in figures.items() if figure.origin == "assumed"]
        if assumed and not quiet:
            say(f"assumed, as neither measured nor given: {', '.join(assumed)}")
    else:
        console = Console()
        console.print(benchmark_text(benchmark, cores()), highlight=False)
        console.print(figures_table(figures))


app.command()(calibrate)
app.command()(meters)


@app.command()
def policy(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The policy, a TOML file (docs/device-policy.md).")
    ] = None,
    metered: Annotated[
        bool | None,
        typer.Option(
            "--metered/--unmetered",
            help="Whether the link is metered, as the node-config says.",
            show_default="unknown",
        ),
    ] = None,
    root: Annotated[
        Path, typer.Option(help="Folder with sys and proc, to try a policy on a copy of a device's.")
    ] = Path("/"),
    as_json: AsJson = False,
) -> None:
    """Show the condition that this machine is in, and whether a policy allows it to work now.

    What a policy asks about and nobody knows counts against the work.
    No coordinator can override a policy.

    For example:
      slimfleet-device policy
      slimfleet-device policy /etc/slimfleet/policy.toml --unmetered
    """
    own = None if file is None else read_policy(file)
    condition = read_condition(root, metered)
    reason = None if own is None else refusal(own, condition, datetime.now().time())
    message = "" if own is None or reason is None else reason_in_words(reason, own, condition)
    if as_json:
        found = {"condition": asdict(condition), "policy": None if own is None else asdict(own)}
        print(json_text({**found, "refusal": reason, "message": message}))
        return
    with interruptible():
        from rich.console import Console

        from slimfleet.client.tables import condition_table
    console = Console()
    console.print(condition_table(condition))
    if own is not None:
        verdict = "allows work now" if reason is None else f"forbids work now ({reason}): {message}"
        console.print(f"{file} {verdict}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of `slimfleet-device`."""
    run_app(app, "slimfleet-device", extra="device")


if __name__ == "__main__":
    main()
