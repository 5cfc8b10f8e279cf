"""Java, jars and cached class data of this machine. Starts no Spark session."""
