"""From a source to a table: rows, columns, jobs, journal, phases, findings, conditions."""
