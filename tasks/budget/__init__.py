"""What more labels would bring: trainings on parts of the data, curves through their AP, and a forecast with a band."""
