def write_report(summary, path): pass
