"""What a person runs, schedules or triggers: a module for each flow."""
