"""Fault detectors: a test, networks, their training, alarms, metrics."""

from koboshi.detect.alarms import AlarmCfg, AlarmState, alarm_step, initial_alarms
from koboshi.detect.base import Detector, Reading
from koboshi.detect.build import AnyDetectorCfg, build_detector, cfg_from_dict, cfg_to_dict, weights_of
from koboshi.detect.calibration import calibrate, evaluate_detector
from koboshi.detect.cusum import CusumCfg, ResidualCusum
from koboshi.detect.files import load_detector, save_detector
from koboshi.detect.metrics import COLUMNS, judge_all
from koboshi.detect.model import DetectorCfg, FaultDetector
from koboshi.detect.plots import picture
from koboshi.detect.spec import GROUP, DetectorSpec
from koboshi.detect.train import DetectorTrainCfg, DetectorTrainer, Mirror, train_detector

__all__ = [
    "COLUMNS",
    "GROUP",
    "AlarmCfg",
    "AlarmState",
    "AnyDetectorCfg",
    "CusumCfg",
    "Detector",
    "DetectorCfg",
    "DetectorSpec",
    "DetectorTrainCfg",
    "DetectorTrainer",
    "FaultDetector",
    "Mirror",
    "Reading",
    "ResidualCusum",
    "alarm_step",
    "build_detector",
    "calibrate",
    "cfg_from_dict",
    "cfg_to_dict",
    "evaluate_detector",
    "initial_alarms",
    "judge_all",
    "load_detector",
    "picture",
    "save_detector",
    "train_detector",
    "weights_of",
]
