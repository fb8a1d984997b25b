"""The audit of a source: rows and columns, jobs, journal, phases, findings, conditions."""
