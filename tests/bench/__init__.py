"""The bench: ratios against peers measured side by side in the same run, medians of several rounds."""
