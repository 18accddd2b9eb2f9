"""Workers on hosts, for as long as a run: started all at once, started again when they are lost, ended with the run."""
