"""The recurrent fault detector: model, training, alarms, metrics."""

from koboshi.detect.alarms import AlarmCfg, AlarmState, alarm_step, initial_alarms
from koboshi.detect.calibration import calibrate, evaluate_detector
from koboshi.detect.files import load_detector, save_detector
from koboshi.detect.metrics import COLUMNS, judge_all
from koboshi.detect.model import GROUP, DetectorCfg, DetectorSpec, FaultDetector
from koboshi.detect.plots import picture
from koboshi.detect.train import DetectorTrainCfg, DetectorTrainer, Mirror, train_detector

__all__ = [
    "COLUMNS",
    "GROUP",
    "AlarmCfg",
    "AlarmState",
    "DetectorCfg",
    "DetectorSpec",
    "DetectorTrainCfg",
    "DetectorTrainer",
    "FaultDetector",
    "Mirror",
    "alarm_step",
    "calibrate",
    "evaluate_detector",
    "initial_alarms",
    "judge_all",
    "load_detector",
    "picture",
    "save_detector",
    "train_detector",
]
