"""From raw outputs to instances, and to masks at clicks."""
