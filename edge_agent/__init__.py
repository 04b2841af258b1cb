"""What runs on a device: functions, spool and uplink, and the contract that the cloud side shares."""
