// What each model makes of its outputs, as engine/readers/ does it: into a row.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model.hpp"
#include "picture.hpp"

struct Decision {
    std::optional<double> probability;
    std::optional<double> threshold;
    std::optional<bool> called;  // nothing: left open
};

// What a network has looked at, and what it gave.
struct Look {
    Prepared square;
    Outputs outputs;
};

// A picture that is bright enough for one model and not for another.
Ungradable too_dark();

constexpr std::array<double, 3> middles = {0.75, 0.6, 0.5};  // of the field of view, where no disc is seen in the whole

// The multi-task model at work: once, and where that shows no disc of a usual size, ever closer at the middle, as a
// wide field shows the disc small. middle: the first of the middles, twice as fine as the square.
Look look_for_disc(Model& model, const Prepared& square, const Prepared& middle);

// Disc, cup, fovea and glaucoma. Throws Ungradable, with the row as it was, where there is no disc.
Decision read_multitask(const nlohmann::ordered_json& contract, const Look& look, nlohmann::ordered_json& row);

// Of a classifier that judges pictures: their scores into the row. One with a fault is refused before anything is
// decided. Gives: the diseases for which the picture is too coarse.
std::vector<std::string> grade(const nlohmann::ordered_json& contract, const Look& look, nlohmann::ordered_json& row);

// Diseases, each with an operating point and a band of doubt. glaucoma: as the multi-task model has it.
void read_classifier(const nlohmann::ordered_json& contract, const std::string& point, const Look& look,
                     const Decision& glaucoma, nlohmann::ordered_json& row);

// Nothing is decided on diseases for which the picture is too coarse.
void leave_open(const std::vector<std::string>& coarse, nlohmann::ordered_json& row);
