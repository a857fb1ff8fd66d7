"""The comparison table of `videodeblur bench`: its options, rows, report and text."""
