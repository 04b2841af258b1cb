"""In the cloud: the bridge from MQTT into the log, the embedded log, and the workers that land it in the lake."""
