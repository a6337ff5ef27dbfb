"""System call traces: events as columns, the filter language, captures, chisels. Pure."""
