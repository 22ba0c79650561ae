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
    bool turned = false;  // by a quarter, and what it gave turned back
};

// A picture that is bright enough for one model and not for another.
Ungradable too_dark();

// The multi-task model at work: once, and where that shows no disc of a usual size, ever closer at the middle, as a
// wide field shows the disc small; then turned, as it may lie on its side. finer: the whole field of view, twice as
// fine as the square.
Look look_for_disc(Model& model, const Prepared& square, const Prepared& finer);

// Where a model of the kind disc is to look closer; nothing where what was taken for a disc cannot be one
// or the picture lies on its side.
std::optional<Spot> spot_of(const nlohmann::ordered_json& contract, const Look& look, const Prepared& finer);

// Disc, cup, fovea and glaucoma. Throws Ungradable, with the row as it was, where there is no disc.
Decision read_multitask(const nlohmann::ordered_json& contract, const Look& look, nlohmann::ordered_json& row);

// The second look: each map is the mean of this look's and the first one's.
Look look_closer(Model& model, const Prepared& square, const Look& first);

// Disc, cup and glaucoma again, of the second look; where that shows no whole disc with a cup, what was found stands.
// of_first: the contract of the model that took the first look.
Decision read_disc(const nlohmann::ordered_json& contract, const Look& look, const nlohmann::ordered_json& of_first,
                   const Look& first, const Decision& found, nlohmann::ordered_json& row);

// Of a classifier that judges pictures: their scores into the row. One with a fault is refused before anything is
// decided. Gives: the diseases for which the picture is too coarse.
std::vector<std::string> grade(const nlohmann::ordered_json& contract, const Look& look, nlohmann::ordered_json& row);

// Diseases, each with an operating point and a band of doubt. glaucoma: as the multi-task model has it.
void read_classifier(const nlohmann::ordered_json& contract, const std::string& point, const Look& look,
                     const Decision& glaucoma, nlohmann::ordered_json& row);

// Nothing is decided on diseases for which the picture is too coarse.
void leave_open(const std::vector<std::string>& coarse, nlohmann::ordered_json& row);
