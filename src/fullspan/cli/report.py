"""Write the report of a run: loss curves, figures, samples and the commands that repeat it."""

from __future__ import annotations

from fullspan.pipelines.report import ReportConfig, write_report


def command(config: ReportConfig) -> None:
    """Write the report of a run: loss curves, figures, samples and the commands that repeat it."""
    print(f"wrote {write_report(config.run)}")
