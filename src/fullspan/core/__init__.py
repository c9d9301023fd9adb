"""What every other part stands on: errors, configs, files, runs, progress, seeds, devices."""
